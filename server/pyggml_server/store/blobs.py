"""Content-addressed files: ``blobs/sha256-<hex>``. A file under its final name is complete and has that
digest.
"""

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Final

from pyggml_server.errors import DigestMismatchError, StoreError
from pyggml_server.store.progress import Progress, Report, silent

__all__ = ["Blob", "BlobStore", "BlobWriter", "parse_digest"]

_DIGEST: Final = re.compile(r"sha256[:-]([0-9a-fA-F]{64})\Z")
_FIRST_FORM: Final = re.compile(r"sha256:([0-9a-f]{64})\Z")
_FILE: Final = re.compile(r"sha256-([0-9a-f]{64})(-partial(?:-\d+)?)?\Z")
_TEMPORARY: Final = re.compile(r"\.tmp-[0-9a-f]{16}\Z")
_ABANDONED_SECONDS: Final = 24 * 3600
_CHUNK: Final = 1 << 20


def parse_digest(text: str) -> str:
    """Check a digest and give it in the form ``sha256:<64 hex>``, in lower case.

    Raises:
        StoreError: the text is no SHA-256 digest. It never comes near a path then.
    """
    match = _DIGEST.match(text)
    if match is None:
        raise StoreError(f"invalid digest {text[:100]!r}: sha256:<64 hexadecimal digits> is needed")
    return f"sha256:{match[1].lower()}"


@dataclass(frozen=True, slots=True)
class Blob:
    """A file of the store: its digest (``sha256:<hex>``) and its size in bytes."""

    digest: str
    size: int


class BlobStore:
    """The folder of blobs. Safe to use from several processes at once.

    Args:
        folder: Where the blobs lie; made when the first one is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder

    def path(self, digest: str) -> Path:
        """Where the blob lies or would lie.

        Raises:
            StoreError: the digest is malformed.
        """
        return self.folder / parse_digest(digest).replace(":", "-")

    def find(self, digest: str) -> Blob | None:
        """The blob, if it is there."""
        try:
            return Blob(parse_digest(digest), self.path(digest).stat().st_size)
        except FileNotFoundError:
            return None

    @contextmanager
    def writer(self, *, size: int = 0) -> Iterator["BlobWriter"]:
        """A new blob to write to; without :meth:`BlobWriter.commit` nothing of it remains.

        Args:
            size: Expected bytes, to refuse early when the disk is full; 0 if unknown.

        Raises:
            StoreError: less than ``size`` bytes are free.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.drop_abandoned()
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise StoreError(f"{self.folder}: {size:,} bytes are needed, {free:,} are free on this disk")
        path = self.folder / f".tmp-{secrets.token_hex(8)}"
        try:
            with path.open("xb") as file:
                yield BlobWriter(self, path, file)
        finally:
            path.unlink(missing_ok=True)

    def add_bytes(self, data: bytes) -> Blob:
        """Store a small text or JSON document."""
        with self.writer(size=len(data)) as writer:
            writer.write(data)
            return writer.commit()

    def add_stream(
        self,
        source: IO[bytes],
        *,
        size: int,
        status: str,
        expected: str | None = None,
        check: Callable[[Path], object] | None = None,
        report: Report = silent,
    ) -> Blob:
        """Store what a stream holds.

        Args:
            source: Read to its end.
            size: The bytes it should have.
            status: The text for ``report``.
            expected: The digest it must have.
            check: Called with the complete file before it becomes visible; may raise.
            report: Receives the progress.

        Raises:
            DigestMismatchError: it has another digest than ``expected``.
            StoreError: it is shorter or longer than ``size``.
        """
        with self.writer(size=size) as writer:
            writer.copy(source, total=size, status=status, report=report)
            if writer.size != size:
                raise StoreError(f"{status}: {writer.size:,} bytes arrived, {size:,} were expected")
            return writer.commit(expected=expected, check=check)

    def adopt(self, path: Path, digest: str) -> None:
        """Make a complete file on the same disk a blob; its content was checked and flushed by the caller."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path.replace(self.path(digest))
        _sync_folder(self.folder)

    def verify(self, digest: str) -> None:
        """Read a blob whole and compare its digest.

        Raises:
            DigestMismatchError: it was changed.
        """
        path = self.path(digest)
        with path.open("rb") as file:
            actual = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        if actual != parse_digest(digest):
            raise DigestMismatchError(f"{path}: the content has the digest {actual}: pull the model again")

    def remove(self, digest: str) -> bool:
        """Delete a blob; False if there was none. An open file or map of it stays usable."""
        try:
            self.path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def drop_unused(self, used: Set[str], *, older: float = 3600.0) -> list[str]:
        """Delete blobs, and Ollama's unfinished downloads, that are not in ``used``.

        Args:
            used: Digests to keep.
            older: Only files that were last written so many seconds ago: younger ones may belong to a model
                whose manifest is about to be written.

        Returns:
            The digests that are gone.
        """
        removed, before = list[str](), time.time() - older
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            match = _FILE.match(path.name)
            if match is None or (not match[2] and f"sha256:{match[1]}" in used):
                continue
            with suppress(FileNotFoundError):  # another process was faster
                if path.lstat().st_mtime < before:
                    path.unlink()
                    removed.append(f"sha256:{match[1]}")
        return removed

    def rename_first_form(self) -> None:
        """Give files that Ollama's first versions wrote (``sha256:<hex>``) the name that they have today."""
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if match := _FIRST_FORM.match(path.name):
                with suppress(FileNotFoundError):  # another process was faster
                    path.rename(self.path(f"sha256:{match[1]}"))

    def drop_abandoned(self) -> None:
        """Delete temporary files that a killed process left more than a day ago."""
        before = time.time() - _ABANDONED_SECONDS
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if _TEMPORARY.match(path.name):
                with suppress(FileNotFoundError):  # another process was faster
                    if path.stat().st_mtime < before:
                        path.unlink()


class BlobWriter:
    """Takes the bytes of one blob; made by :meth:`BlobStore.writer`."""

    def __init__(self, store: BlobStore, path: Path, file: BinaryIO) -> None:
        self.path: Final = path
        """The temporary file."""
        self.size = 0
        """Bytes written so far."""
        self._store = store
        self._file = file
        self._hash = hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        """Append bytes."""
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def copy(self, source: IO[bytes], *, total: int, status: str, report: Report = silent) -> str:
        """Append a stream to its end; gives the SHA-256 of this stream alone (hexadecimal)."""
        own = hashlib.sha256()
        while chunk := source.read(_CHUNK):
            self.write(chunk)
            own.update(chunk)
            report(Progress(status, self.size, total))
        return own.hexdigest()

    def commit(self, *, expected: str | None = None, check: Callable[[Path], object] | None = None) -> Blob:
        """Make the blob visible: flush it to disk and rename it to its digest.

        Args:
            expected: The digest it must have.
            check: Called with the complete file before it becomes visible; may raise.

        Raises:
            DigestMismatchError: it has another digest than ``expected``.
        """
        digest = f"sha256:{self._hash.hexdigest()}"
        if expected is not None and parse_digest(expected) != digest:
            raise DigestMismatchError(
                f"digest mismatch, the file must be downloaded again: want {parse_digest(expected)}, got {digest}"
            )
        self._file.flush()
        os.fsync(self._file.fileno())
        if check is not None:
            check(self.path)
        self.path.replace(self._store.path(digest))
        _sync_folder(self._store.folder)
        return Blob(digest, self.size)


def _sync_folder(folder: Path) -> None:
    # the rename itself must reach the disk before a manifest points to the file
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
