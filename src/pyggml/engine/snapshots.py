"""KV caches on disk: what was computed for a prompt, found again after a restart."""

import bisect
import contextlib
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from threading import Lock

import numpy as np
from filelock import FileLock

from pyggml.errors import ParameterError

from .snapshot_file import VERSION, Array, BrokenSnapshotError, Header, map_arrays, read_header, write_file

__all__ = ["Snapshot", "SnapshotStore"]

log = logging.getLogger("pyggml.engine")

SUFFIX = f".kv{VERSION}"
UNFINISHED = ".tmp"
ABANDONED_SECONDS = 3600.0
# A folder changed so recently may change again without its time of change telling.
RACY_SECONDS = 0.1
LOCK_SECONDS = 30.0


@dataclass(frozen=True)
class Snapshot:
    """One stored cache.

    Attributes:
        path: the file.
        n_tokens: how many tokens it is for.
        n_common: how many of those :meth:`SnapshotStore.find` was asked about, from the first one on.
        meta: the notes it was saved with.
        n_bytes: size of the file.
    """

    path: Path
    n_tokens: int
    n_common: int
    meta: Mapping[str, str | int]
    n_bytes: int
    header: Header = field(repr=False, compare=False)


class SnapshotStore:
    """A folder of snapshots of bounded size. Safe to share between threads, and the folder between processes.

    ``folder/<digest of the model key>/<digest of the tokens>.kv1``, in the format of ``engine/snapshot_file.py``. The
    time of a file's last change is that of its last use; what was used longest ago goes first, whichever model it
    belongs to. Nothing here raises for what is wrong with the disk or with a file: a cache saves time, no more. Such
    things are logged as warnings, and files that are damaged are removed.

    Saving 50 MB takes about 0.15 s with a fast disk, loading them 0.04 s, of which the checksum (CRC-32, over 1 GB/s)
    is most.
    """

    def __init__(self, folder: str | Path, *, max_bytes: int, model_key: str) -> None:
        """
        Args:
            folder: made when something is saved.
            max_bytes: bound for the files of all models together; one more file per writer while it is written.
            model_key: names everything that makes a cache this one: digest of the model's file, cache types, adapters.
                Snapshots with another key do not exist for this store.

        Raises:
            ParameterError: ``max_bytes`` is negative, or the key is empty.
        """
        if max_bytes < 0:
            raise ParameterError(f"max_bytes must be 0 or more, got {max_bytes}")
        if not model_key:
            raise ParameterError("the model key of a snapshot store must not be empty")
        self._top = Path(folder)
        self._folder = self._top / hashlib.sha256(model_key.encode()).hexdigest()[:32]
        self._max_bytes = max_bytes
        self._model_key = model_key
        self._lock = Lock()
        # Tokens as bytes that sort like the lists of numbers, and the file each is in.
        self._sorted: list[bytes] = []
        self._headers: dict[bytes, tuple[Path, Header]] = {}
        self._files: dict[str, tuple[int, int, bytes]] = {}
        self._seen: int | None = None

    # -- use ----------------------------------------------------------------------------------------------------

    def save(
        self, tokens: Sequence[int], arrays: Mapping[str, Array], meta: Mapping[str, str | int] | None = None
    ) -> Snapshot | None:
        """Store the arrays of a cache, in place of what is there for the same tokens.

        Writing goes through a temporary file, is synced, and takes its place at once; the interpreter's lock is free
        most of the time, so a thread can do it.

        Returns:
            The snapshot, or None if it is larger than the bound or the disk refused.

        Raises:
            ParameterError: no tokens, one that is no int32, or arrays and notes that the format cannot keep.
        """
        ids = _ids(tokens)
        if not ids.size:
            raise ParameterError("a snapshot needs at least one token")
        n_data = sum(np.asarray(array).nbytes for array in arrays.values())
        if n_data > self._max_bytes:
            log.warning("a snapshot of %d bytes is over the bound of %d for all: not saved", n_data, self._max_bytes)
            return None
        try:
            return self._save(ids, arrays, meta or {})
        except OSError as error:
            log.warning("%s: cannot save a snapshot: %s", self._folder, error)
            return None

    def find(self, tokens: Sequence[int], *, whole: bool = False) -> Snapshot | None:
        """The snapshot that shares the longest beginning with ``tokens``; None if none shares any.

        Takes half a millisecond among hundreds once their headers are in memory; they are read when files appear.

        Args:
            tokens: a prompt.
            whole: only snapshots all of whose tokens ``tokens`` begins with, for caches that cannot go back.
        """
        key = _ids(tokens).astype(">i4").tobytes()
        with self._lock:
            self._refresh()
            return self._longest_whole(key) if whole else self._longest(key)

    def load(self, snapshot: Snapshot) -> dict[str, Array] | None:
        """The arrays of a snapshot, read-only views of the mapped file, checked; it counts as used.

        Returns:
            Arrays by name, or None if the file is gone or damaged (then it is removed).
        """
        path = snapshot.path
        try:
            arrays = map_arrays(path, snapshot.header)
            os.utime(path)
        except FileNotFoundError:
            self._forget(path)
            return None
        except (OSError, ValueError) as error:
            self._discard(path, error)
            return None
        return arrays

    def remove(self, snapshot: Snapshot) -> None:
        """Delete a snapshot, for instance because a longer one took its place."""
        self._forget(snapshot.path)
        with contextlib.suppress(OSError):
            snapshot.path.unlink()

    @property
    def n_bytes(self) -> int:
        """Bytes of all files of the folder, whichever model they belong to."""
        return sum(size for _, size, _ in self._all_files())

    # -- the index ----------------------------------------------------------------------------------------------

    def _longest(self, key: bytes) -> Snapshot | None:
        """In sorted order, nothing shares more with ``key`` than its neighbours do."""
        at = bisect.bisect_left(self._sorted, key)
        found = [(n, other) for other in self._sorted[max(0, at - 1) : at + 1] if (n := _n_common(key, other))]
        return self._snapshot(*max(found)[::-1]) if found else None

    def _longest_whole(self, key: bytes) -> Snapshot | None:
        best = self._longest(key)
        most = 4 * best.n_common if best else 0
        for n in sorted({len(other) for other in self._sorted if len(other) <= most}, reverse=True):
            if key[:n] in self._headers:
                return self._snapshot(key[:n], n // 4)
        return None

    def _snapshot(self, key: bytes, n_common: int) -> Snapshot:
        path, header = self._headers[key]
        return Snapshot(path, len(key) // 4, n_common, header.meta, header.file_bytes, header)

    def _refresh(self) -> None:
        """Read the headers of files that came, forget files that went."""
        try:
            changed = self._folder.stat().st_mtime_ns
        except OSError:
            changed = None
        if changed is not None and changed == self._seen:
            return
        self._seen = changed if changed is None or time.time() - changed / 1e9 > RACY_SECONDS else None
        present: dict[str, tuple[int, int]] = {}
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    # Opening anything but a plain file may wait for ever.
                    if entry.name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False):
                        stat = entry.stat(follow_symlinks=False)
                        present[entry.name] = stat.st_ino, stat.st_size
        for name in [name for name, known in self._files.items() if present.get(name) != known[:2]]:
            self._drop(name)
        for name, (inode, size) in present.items():
            if name not in self._files and (header := self._read(self._folder / name)) is not None:
                self._files[name] = inode, size, header.tokens
                self._headers[header.tokens] = self._folder / name, header
        self._sorted = sorted(self._headers)

    def _drop(self, name: str) -> None:
        tokens = self._files.pop(name)[2]
        if tokens in self._headers and self._headers[tokens][0].name == name:
            del self._headers[tokens]
            at = bisect.bisect_left(self._sorted, tokens)
            if self._sorted[at : at + 1] == [tokens]:
                del self._sorted[at]

    def _forget(self, path: Path) -> None:
        with self._lock:
            if path.name in self._files:
                self._drop(path.name)

    def _read(self, path: Path) -> Header | None:
        try:
            with path.open("rb") as file:
                header = read_header(file, size=os.fstat(file.fileno()).st_size)
            if header.model_key != self._model_key or path.name != _name(header.tokens):
                raise BrokenSnapshotError("it was written for another model or other tokens")
        except FileNotFoundError:
            return None
        except BrokenSnapshotError as error:
            self._unlink_broken(path, error)
            return None
        except OSError as error:
            log.warning("%s: ignored: %s", path, error)
            return None
        return header

    def _discard(self, path: Path, error: Exception) -> None:
        self._forget(path)
        if isinstance(error, OSError):
            log.warning("%s: ignored: %s", path, error)
        else:
            self._unlink_broken(path, error)

    @staticmethod
    def _unlink_broken(path: Path, error: Exception) -> None:
        log.warning("%s: removed, because %s", path, error)
        with contextlib.suppress(OSError):
            path.unlink()

    # -- the disk -----------------------------------------------------------------------------------------------

    def _save(self, ids: Array, arrays: Mapping[str, Array], meta: Mapping[str, str | int]) -> Snapshot | None:
        self._folder.mkdir(parents=True, exist_ok=True)
        key = ids.astype(">i4").tobytes()
        path = self._folder / _name(key)
        handle, name = tempfile.mkstemp(dir=self._folder, prefix=path.stem, suffix=UNFINISHED)
        unfinished = Path(name)
        try:
            with os.fdopen(handle, "w+b") as file:
                size = write_file(file, model_key=self._model_key, tokens=ids, arrays=arrays, meta=meta)
                file.flush()
                os.fsync(file.fileno())
                file.seek(0)
                header = read_header(file, size=size)
            with FileLock(self._top / "lock", timeout=LOCK_SECONDS):
                if not self._make_room(size, path):
                    return None
                unfinished.replace(path)
            _sync_folder(self._folder)
        finally:
            unfinished.unlink(missing_ok=True)
        with self._lock:
            self._seen = None
        return Snapshot(path, len(ids), len(ids), header.meta, size, header)

    def _make_room(self, size: int, path: Path) -> bool:
        """Delete what was used longest ago until ``size`` more bytes fit; whether they can."""
        if size > self._max_bytes:
            log.warning("a snapshot of %d bytes is over the bound of %d for all: not saved", size, self._max_bytes)
            return False
        files = [entry for entry in self._all_files() if entry[2] != path]
        excess = sum(n for _, n, _ in files) + size - self._max_bytes
        for _, n, old in sorted(files):
            if excess <= 0:
                break
            old.unlink(missing_ok=True)
            excess -= n
            log.info("%s: removed to make room", old)
        return True

    def _all_files(self) -> Iterator[tuple[float, int, Path]]:
        """Last use, bytes and path of every snapshot, of any version and model; clears away abandoned files."""
        for path in self._top.glob("*/*"):
            with contextlib.suppress(OSError):
                stat = path.lstat()
                if path.suffix == UNFINISHED:
                    if time.time() - stat.st_mtime > ABANDONED_SECONDS:
                        path.unlink()
                elif path.suffix.startswith(".kv") and S_ISREG(stat.st_mode):
                    yield stat.st_mtime, stat.st_size, path


def _ids(tokens: Sequence[int]) -> Array:
    try:
        wide = np.asarray(tokens, np.int64)
    except (OverflowError, TypeError, ValueError) as error:
        raise ParameterError(f"tokens must be a list of int32: {error}") from error
    if wide.ndim != 1 or (wide.size and (wide.min() < 0 or wide.max() >= 2**31)):
        raise ParameterError("tokens must be a list of int32, none of them negative")
    return wide.astype(np.int32)


def _name(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()[:32] + SUFFIX


def _n_common(one: bytes, other: bytes) -> int:
    """Tokens that both begin with."""
    n = min(len(one), len(other)) // 4
    differ = np.frombuffer(one, np.int32, n) != np.frombuffer(other, np.int32, n)
    return int(differ.argmax()) if differ.any() else n


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
