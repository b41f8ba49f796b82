"""Blobs and manifests on their way to a registry (OCI distribution specification, "Push")."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final

import httpx2

from pyggml_server.errors import TransferError
from pyggml_server.registry.client import MANIFEST_TYPE, RefusedError, Repository, check, describe, retry

__all__ = ["Upload", "push_manifest"]

_CHUNK: Final = 1 << 20
_RANGE: Final = re.compile(r"(?:bytes=)?0-(\d+)\Z")


class Upload:
    """Sends one blob.

    Args:
        repository: Where it goes.
        digest: Its digest.
        path: Its content.
        progress: Called with the number of bytes that are there.
    """

    def __init__(self, repository: Repository, digest: str, path: Path, progress: Callable[[int], None]) -> None:
        self._repository: Final = repository
        self._settings: Final = repository.settings
        self._digest: Final = digest
        self._path: Final = path
        self._size: Final = path.stat().st_size
        self._progress: Final = progress

    async def run(self, *, mounts: Sequence[str] = ()) -> None:
        """Send it, unless it is there.

        Args:
            mounts: Repositories (``namespace/model``) of the same registry that may have it.

        Raises:
            TransferError: the registry refuses it, or does not answer.
        """
        if await self._repository.has_blob(self._digest):
            self._progress(self._size)
            return
        location = None
        for source in mounts or ("",):
            location = await self._begin(source)
            if location is None:
                self._progress(self._size)
                return
        if location is not None:
            await self._finish(await self._send_parts(location))

    async def _begin(self, mount: str) -> httpx2.URL | None:
        """Open an upload; None where the registry took the blob from the repository ``mount``."""
        url = self._repository.url("blobs/uploads/")
        if mount:
            url = url.copy_merge_params({"mount": self._digest, "from": mount})

        async def post() -> httpx2.URL | None:
            response = await self._repository.send("POST", url, content=b"")
            await check(response)
            return None if response.status_code == 201 else self._location(response, url)

        opened: httpx2.URL | None = await retry(self._settings, post)
        return opened

    async def _send_parts(self, location: httpx2.URL) -> httpx2.URL:
        offset, failures = 0, 0
        part = self._settings.part_size(self._size)
        while offset < self._size:
            length = min(part, self._size - offset)
            try:
                location = await self._patch(location, offset, length)
            except (RefusedError, httpx2.TransportError, TimeoutError) as error:
                failures += 1
                if (isinstance(error, RefusedError) and not error.temporary) or failures >= self._settings.attempts:
                    raise TransferError(f"{self._repository.name.display}: {describe(error)}") from error
                await asyncio.sleep(self._settings.backoff * 2 ** (failures - 1))
                location, offset = await self._ask(location)
                continue
            offset, failures = offset + length, 0
            self._progress(offset)
        return location

    async def _patch(self, location: httpx2.URL, offset: int, length: int) -> httpx2.URL:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(length),
            "Content-Range": f"{offset}-{offset + length - 1}",
        }
        response = await self._repository.send(
            "PATCH", location, headers=headers, content=lambda: self._read(offset, length)
        )
        await check(response)
        return self._location(response, location)

    async def _read(self, offset: int, length: int) -> AsyncIterator[bytes]:
        with self._path.open("rb") as file:
            file.seek(offset)
            left = length
            while left:
                chunk = await asyncio.to_thread(file.read, min(_CHUNK, left))
                if not chunk:
                    raise TransferError(f"{self._path}: the file became shorter while it was sent")
                left -= len(chunk)
                yield chunk
                self._progress(offset + length - left)

    async def _ask(self, location: httpx2.URL) -> tuple[httpx2.URL, int]:
        """Where to go on, and from which byte, after a failure."""

        async def get() -> tuple[httpx2.URL, int]:
            response = await self._repository.send("GET", location)
            if response.status_code == 404:
                begun = await self._begin("")
                return begun or location, 0
            await check(response)
            match = _RANGE.match(response.headers.get("Range", ""))
            # registries say "0-0" for an upload without any bytes, too: one byte more or less is sent again
            arrived = int(match[1]) + 1 if match and int(match[1]) else 0
            return self._location(response, location), min(arrived, self._size)

        found: tuple[httpx2.URL, int] = await retry(self._settings, get)
        return found

    async def _finish(self, location: httpx2.URL) -> None:
        url = location.copy_merge_params({"digest": self._digest})

        async def put() -> None:
            response = await self._repository.send("PUT", url, content=b"")
            if response.status_code == 404 and await self._repository.has_blob(self._digest):
                return  # the answer to an earlier attempt got lost
            await check(response)

        await retry(self._settings, put)

    def _location(self, response: httpx2.Response, url: httpx2.URL) -> httpx2.URL:
        target = response.headers.get("Location")
        if not target:
            return url
        joined = url.join(target)
        if joined.scheme not in ("http", "https") or (url.scheme == "https" and joined.scheme == "http"):
            raise TransferError(f"{url.host}: it wants the upload at {joined.scheme}://{joined.host}: not safe")
        return joined


async def push_manifest(repository: Repository, data: bytes, *, media_type: str = MANIFEST_TYPE) -> None:
    """Give the blobs their name; the last step of a push.

    Raises:
        TransferError: the registry refuses it.
    """

    async def put() -> None:
        url = repository.url(f"manifests/{repository.name.tag}")
        await check(await repository.send("PUT", url, headers={"Content-Type": media_type}, content=data))

    await retry(repository.settings, put)
