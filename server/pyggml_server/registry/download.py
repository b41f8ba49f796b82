"""One blob, fetched in parts at once; what has arrived survives the end of the process."""

import asyncio
import json
import os
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

from pyggml_server.errors import TransferError
from pyggml_server.registry.client import RefusedError, Repository, check, describe

__all__ = ["Download", "DownloadState", "Part"]

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)\Z")
_SAVE_BYTES: Final = 16 << 20
_WRITE_BYTES: Final = 1 << 20


@dataclass(slots=True)
class Part:
    """A range of the blob: where it begins, its length, and how much of it has arrived."""

    offset: int
    size: int
    done: int = 0


class DownloadState:
    """What is known of an unfinished download: its file, and beside it a small JSON document.

    The document never claims more than was written, so a process may be killed at any time.

    Args:
        path: The file of the content.
        size: Its length when it is complete.
        part_size: For a new download.
    """

    def __init__(self, path: Path, size: int, part_size: int) -> None:
        self.path: Final = path
        self.size: Final = size
        self._journal: Final = path.with_name(f"{path.name}.json")
        self.parts: Final = self._load() or [
            Part(start, min(part_size, size - start)) for start in range(0, size, part_size)
        ]

    @property
    def done(self) -> int:
        """Bytes that have arrived."""
        return sum(part.done for part in self.parts)

    def save(self) -> None:
        """Write the document, atomically."""
        document = {"size": self.size, "parts": [[p.offset, p.size, p.done] for p in self.parts]}
        temporary = self._journal.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            temporary.write_text(json.dumps(document))
            temporary.replace(self._journal)
        finally:
            temporary.unlink(missing_ok=True)

    def drop(self) -> None:
        """Forget the download."""
        self._journal.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def flush(self) -> None:
        """Bring the content to the disk."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())

    def restart(self) -> None:
        """Begin again, in one part."""
        self.parts[:] = [Part(0, self.size)]

    def _load(self) -> list[Part] | None:
        """The parts of the document; None where it does not fit to the file."""
        try:
            document: Any = json.loads(self._journal.read_text())
            parts = [Part(*map(int, row)) for row in document["parts"]]
            if document["size"] != self.size or self.path.stat().st_size != self.size:
                return None
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        ends = [0, *(part.offset + part.size for part in parts)]
        fits = ends[-1] == self.size and all(
            part.offset == end and part.size > 0 and 0 <= part.done <= part.size
            for part, end in zip(parts, ends, strict=False)
        )
        return parts if fits else None


class _NoRangesError(Exception):
    """The server sends the whole content, whatever part is asked for."""


class Download:
    """Fetches one blob into a file.

    Args:
        repository: Where it is.
        url: Where exactly; redirects are followed.
        state: What has arrived before.
        progress: Called with the number of bytes that are there.
    """

    def __init__(
        self, repository: Repository, url: httpx2.URL, state: DownloadState, progress: Callable[[int], None]
    ) -> None:
        self._repository: Final = repository
        self._settings: Final = repository.settings
        self._url: Final = url
        self._state: Final = state
        self._progress: Final = progress
        self._unsaved = 0

    async def run(self) -> None:
        """Fetch what is missing.

        Raises:
            TransferError: it did not arrive, in spite of all attempts; what has arrived stays.
        """
        state = self._state
        state.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(state.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.ftruncate(handle, state.size)
            state.save()
            try:
                await self._fetch_all(handle)
            except _NoRangesError:
                state.restart()
                await self._fetch_all(handle)
        finally:
            os.close(handle)
            state.save()

    async def _fetch_all(self, handle: int) -> None:
        gate = asyncio.Semaphore(self._settings.streams)

        async def fetch(part: Part) -> None:
            async with gate:
                await self._fetch_part(handle, part)

        try:
            async with asyncio.TaskGroup() as group:
                for part in self._state.parts:
                    if part.done < part.size:
                        group.create_task(fetch(part))
        except* Exception as errors:  # the first one tells enough
            raise _first(errors) from None

    async def _fetch_part(self, handle: int, part: Part) -> None:
        failures = 0
        while part.done < part.size:
            before = part.done
            try:
                await self._stream(handle, part)
            except RefusedError as error:
                # the place that a redirect names may have expired: the registry gives another one
                if not error.temporary and (error.status not in (401, 403) or failures):
                    raise
                reason = str(error)
            except (httpx2.TransportError, TimeoutError) as error:
                reason = describe(error)
            else:
                reason = "the connection ended early"
            failures = 0 if part.done > before else failures + 1
            if failures >= self._settings.attempts:
                raise TransferError(f"{self._url}: {failures} attempts in a row brought nothing: {reason}")
            if part.done < part.size:
                await asyncio.sleep(self._settings.backoff * 2 ** max(failures - 1, 0))

    async def _stream(self, handle: int, part: Part) -> None:
        first, last = part.offset + part.done, part.offset + part.size - 1
        headers = {"Range": f"bytes={first}-{last}", "Accept-Encoding": "identity"}
        async with asyncio.timeout(self._settings.stall):
            response = await self._repository.follow("GET", self._url, headers=headers)
        try:
            await check(response)
            self._check_range(response, first)
            await self._copy(response, handle, part)
        finally:
            with suppress(httpx2.TransportError):
                await response.aclose()

    def _check_range(self, response: httpx2.Response, first: int) -> None:
        if response.status_code == 206:
            match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
            if match is None or int(match[1]) != first or match[3] not in ("*", str(self._state.size)):
                raise TransferError(
                    f"{self._url}: it sends {response.headers.get('Content-Range')!r} of {self._state.size} bytes"
                )
        elif len(self._state.parts) > 1:
            raise _NoRangesError

    async def _copy(self, response: httpx2.Response, handle: int, part: Part) -> None:
        if response.status_code != 206:
            part.done = 0
        chunks, pending = response.aiter_raw(), bytearray()

        async def flush() -> None:
            await _write(handle, bytes(pending), part.offset + part.done)
            part.done += len(pending)
            self._note(len(pending))
            pending.clear()

        try:
            while True:
                async with asyncio.timeout(self._settings.stall):
                    chunk = await anext(chunks, b"")
                if not chunk:
                    return
                if part.done + len(pending) + len(chunk) > part.size:
                    raise TransferError(f"{self._url}: it sends more than the {self._state.size} bytes of the manifest")
                pending += chunk
                if len(pending) >= _WRITE_BYTES:
                    await flush()
        finally:
            await flush()  # what came before a failure counts, too

    def _note(self, n: int) -> None:
        self._progress(self._state.done)
        self._unsaved += n
        if self._unsaved >= _SAVE_BYTES:
            self._unsaved = 0
            self._state.save()


async def _write(handle: int, data: bytes, offset: int) -> None:
    writing = asyncio.ensure_future(asyncio.to_thread(_write_at, handle, data, offset))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await writing  # the file must not be closed (and its number given away) under the thread
        raise


def _write_at(handle: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        n = os.pwrite(handle, view, offset)
        view, offset = view[n:], offset + n


def _first(errors: BaseExceptionGroup[Exception]) -> Exception:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, Exception) else RuntimeError(str(error))
