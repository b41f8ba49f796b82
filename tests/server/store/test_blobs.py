"""Content-addressed files."""

import hashlib
import io
import os
import threading
import time
from pathlib import Path

import pytest

from pyggml_server.errors import DigestMismatchError, StoreError
from pyggml_server.store import Blob, BlobStore, Progress


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def names(blobs: BlobStore) -> list[str]:
    return sorted(p.name for p in blobs.folder.iterdir())


def test_a_blob_lies_under_its_digest(blobs: BlobStore) -> None:
    blob = blobs.add_bytes(b"hello")
    assert blob == Blob(sha(b"hello"), 5) == blobs.find(blob.digest)
    assert names(blobs) == [sha(b"hello").replace(":", "-")]
    assert blobs.path(blob.digest).read_bytes() == b"hello"
    assert blobs.add_bytes(b"hello") == blob
    blobs.verify(blob.digest)


@pytest.mark.parametrize(
    "digest",
    ["", "sha256:", "sha256:" + "g" * 64, "sha256:" + "a" * 63, "md5:" + "a" * 64]
    + ["sha256:../" + "a" * 61, "sha256-" + "a" * 64 + "\n", "../../x"],
)
def test_a_malformed_digest_makes_no_path(blobs: BlobStore, digest: str) -> None:
    with pytest.raises(StoreError, match="invalid digest"):
        blobs.path(digest)


def test_both_spellings_of_a_digest(blobs: BlobStore) -> None:
    assert blobs.path("sha256:" + "a" * 64) == blobs.path("sha256-" + "a" * 64)


def test_a_wrong_digest_leaves_nothing(blobs: BlobStore) -> None:
    with pytest.raises(DigestMismatchError, match=r"digest mismatch.*want sha256:00"):
        blobs.add_stream(io.BytesIO(b"data"), size=4, status="s", expected="sha256:" + "0" * 64)
    assert names(blobs) == []


def test_a_short_stream_leaves_nothing(blobs: BlobStore) -> None:
    with pytest.raises(StoreError, match=r"4 bytes arrived, 5 were expected"):
        blobs.add_stream(io.BytesIO(b"data"), size=5, status="s")
    assert names(blobs) == []


def test_a_failing_check_leaves_nothing(blobs: BlobStore) -> None:
    def check(path: Path) -> None:
        assert path.read_bytes() == b"data"
        raise StoreError("no model")

    with pytest.raises(StoreError, match="no model"):
        blobs.add_stream(io.BytesIO(b"data"), size=4, status="s", check=check)
    assert names(blobs) == []


def test_an_error_while_writing_leaves_nothing(blobs: BlobStore) -> None:
    with pytest.raises(KeyboardInterrupt), blobs.writer() as writer:
        writer.write(b"x")
        assert len(names(blobs)) == 1
        raise KeyboardInterrupt
    assert names(blobs) == []


def test_a_full_disk_is_told_before_anything_is_written(blobs: BlobStore) -> None:
    with pytest.raises(StoreError, match=r"bytes are needed, .* are free"), blobs.writer(size=1 << 60):
        pass


def test_progress(blobs: BlobStore) -> None:
    seen: list[Progress] = []
    data = bytes(3 << 20)
    blobs.add_stream(io.BytesIO(data), size=len(data), status="storing x", report=seen.append)
    assert [p.completed >> 20 for p in seen] == [1, 2, 3]
    assert {(p.status, p.total) for p in seen} == {("storing x", len(data))}


def test_a_changed_blob_is_found_by_verify(blobs: BlobStore) -> None:
    blob = blobs.add_bytes(b"hello")
    blobs.path(blob.digest).write_bytes(b"jello")
    with pytest.raises(DigestMismatchError, match="pull the model again"):
        blobs.verify(blob.digest)


def test_remove(blobs: BlobStore) -> None:
    blob = blobs.add_bytes(b"hello")
    assert blobs.remove(blob.digest) is True
    assert blobs.remove(blob.digest) is False
    assert blobs.find(blob.digest) is None


def test_only_old_temporary_files_are_dropped(blobs: BlobStore) -> None:
    blobs.add_bytes(b"x")
    old, young, other = (blobs.folder / n for n in (".tmp-" + "a" * 16, ".tmp-" + "b" * 16, "sha256-partial"))
    for path in (old, young, other):
        path.write_bytes(b"")
    for path in (old, other):
        os.utime(path, (time.time() - 90000,) * 2)
    blobs.add_bytes(b"y")
    assert not old.exists() and young.exists() and other.exists()


def test_many_writers_of_the_same_blob(blobs: BlobStore) -> None:
    data = os.urandom(1 << 20)
    threads = [threading.Thread(target=blobs.add_bytes, args=(data,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(blobs) == [sha(data).replace(":", "-")]
    blobs.verify(sha(data))
