"""Snapshots: what is found, what is loaded, what goes, and what damaged files and other processes can do."""

import json
import logging
import os
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pyggml.engine.snapshot_file import Array
from pyggml.engine.snapshots import SnapshotStore
from pyggml.errors import ParameterError

ARRAYS: dict[str, Array] = {
    "k.0": np.arange(300, dtype=np.float16).reshape(3, 100),
    "positions": np.arange(3, dtype=np.int32),
}
ROOM = 1 << 20
tokens = st.lists(st.integers(0, 2), min_size=1, max_size=6)


def store(folder: Path, *, max_bytes: int = ROOM, model_key: str = "a model") -> SnapshotStore:
    return SnapshotStore(folder, max_bytes=max_bytes, model_key=model_key)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.kv1"))


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def common(one: list[int], other: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def test_what_is_saved_is_found_and_loaded_after_a_restart(tmp_path: Path) -> None:
    store(tmp_path).save([1, 2, 3], ARRAYS, {"kind": "causal", "n": 3})
    again = store(tmp_path)
    found = again.find([1, 2, 3, 4])
    assert found is not None
    assert (found.n_tokens, found.n_common, dict(found.meta)) == (3, 3, {"kind": "causal", "n": 3})
    arrays = again.load(found)
    assert arrays is not None
    assert list(arrays) == list(ARRAYS)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, ARRAYS[name], strict=True)
        assert not array.flags.writeable


@given(
    arrays=st.dictionaries(
        st.text(max_size=5),
        hnp.arrays(
            st.one_of(
                hnp.integer_dtypes(endianness="?"),
                hnp.unsigned_integer_dtypes(endianness="?"),
                hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
                hnp.boolean_dtypes(),
            ),
            hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
        ),
        max_size=5,
    ),
    meta=st.dictionaries(st.text(max_size=5), st.one_of(st.text(max_size=5), st.integers()), max_size=4),
)
@settings(deadline=None, max_examples=60)
def test_any_arrays_come_back(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, Array], meta: dict[str, str | int]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    snapshot = store(folder).save([5], arrays, meta)
    assert snapshot is not None
    assert snapshot.n_bytes == snapshot.path.stat().st_size
    reader = store(folder)
    found = reader.find([5])
    assert found is not None and dict(found.meta) == meta
    loaded = reader.load(found)
    assert loaded is not None and list(loaded) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].shape == array.shape and loaded[name].dtype == array.dtype.newbyteorder("<")


@given(saved=st.lists(tokens, max_size=12), asked=tokens, removed=st.integers(0, 11))
@settings(deadline=None, max_examples=60)
def test_find_takes_the_longest_common_beginning(
    tmp_path_factory: pytest.TempPathFactory, saved: list[list[int]], asked: list[int], removed: int
) -> None:
    folder = tmp_path_factory.mktemp("find")
    one, other = store(folder), store(folder)
    for ids in saved:
        one.save(ids, {})
        other.find(asked)
    if removed < len(saved) and (gone := one.find(saved[removed])) is not None:
        one.remove(gone)
        saved = [ids for ids in saved if ids != saved[removed]]
    for reader in (one, other, store(folder)):
        found, whole = reader.find(asked), reader.find(asked, whole=True)
        best = max((common(ids, asked) for ids in saved), default=0)
        assert (found.n_common if found else 0) == best
        inside = max((len(ids) for ids in saved if asked[: len(ids)] == ids), default=0)
        assert (whole.n_common if whole else 0) == inside
        assert whole is None or whole.n_tokens == whole.n_common


def test_another_model_s_snapshots_do_not_exist(tmp_path: Path) -> None:
    store(tmp_path).save([1, 2], ARRAYS)
    other = store(tmp_path, model_key="another model")
    assert other.find([1, 2]) is None
    # Not even when its file is put into the other's folder.
    (source,) = files(tmp_path)
    mine = other.save([9], ARRAYS)
    assert mine is not None
    stolen = mine.path.parent / source.name
    stolen.write_bytes(source.read_bytes())
    assert other.find([1, 2]) is None
    assert not stolen.exists()


def test_saving_the_same_tokens_again_replaces(tmp_path: Path) -> None:
    one = store(tmp_path)
    one.save([1], {"x": np.zeros(3)})
    first = one.find([1])
    one.save([1], {"x": np.ones(3)})
    assert len(files(tmp_path)) == 1
    second = store(tmp_path).find([1])
    assert second is not None and first is not None
    arrays = one.load(second)
    assert arrays is not None and arrays["x"].tolist() == [1.0] * 3


@pytest.fixture
def intact(tmp_path: Path) -> tuple[Path, bytes]:
    snapshot = store(tmp_path).save([7, 8, 9], ARRAYS, {"note": "x"})
    assert snapshot is not None
    return snapshot.path, snapshot.path.read_bytes()


def opens(folder: Path) -> bool:
    reader = store(folder)
    found = reader.find([7, 8, 9])
    return found is not None and reader.load(found) is not None


def test_one_wrong_bit_anywhere_is_noticed(tmp_path: Path, intact: tuple[Path, bytes]) -> None:
    path, data = intact
    assert opens(tmp_path)
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        assert not opens(tmp_path), f"byte {at}"
        assert not path.exists(), f"byte {at}"
    path.write_bytes(data)
    assert opens(tmp_path)


@pytest.mark.parametrize("n", [0, 1, 39, 40, 41, 100, 191, 192, -64, -1])
def test_a_cut_file_is_removed_with_a_warning(
    tmp_path: Path, intact: tuple[Path, bytes], n: int, caplog: pytest.LogCaptureFixture
) -> None:
    path, data = intact
    path.write_bytes(data[:n])
    with caplog.at_level(logging.WARNING, "pyggml.engine"):
        assert not opens(tmp_path)
    assert path.name in caplog.text
    assert not path.exists()


def test_a_longer_file_is_removed(tmp_path: Path, intact: tuple[Path, bytes]) -> None:
    path, data = intact
    path.write_bytes(data + b"\0")
    assert not opens(tmp_path)
    assert not path.exists()


def forge(
    data: bytes, *, text: bytes | None = None, n_tokens: int | None = None, json_bytes: int | None = None
) -> bytes:
    """A file with other contents whose checksum of the header is right."""
    magic, version, n_json, _, n, _, crc, _ = struct.unpack_from("<8sIIQIIII", data)
    text = data[40 : 40 + n_json] if text is None else text
    body = text + data[40 + n_json : 40 + n_json + 4 * n]
    body += bytes(-(40 + len(body)) % 64)
    begin = -(-(40 + n_json + 4 * n) // 64) * 64
    n_tokens, json_bytes = n if n_tokens is None else n_tokens, len(text) if json_bytes is None else json_bytes
    whole = 40 + len(body) + len(data) - begin
    fixed = (magic, version, json_bytes, whole, n_tokens)
    head = struct.pack("<8sIIQIIII", *fixed, 0, 0, 0)
    fixed_bytes = struct.pack("<8sIIQIIII", *fixed, zlib.crc32(head + body), crc, 0)
    return fixed_bytes + body + data[begin:]


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"model": 1, "meta": {}, "arrays": []}',
        {"meta": []},
        {"meta": {"x": [1]}},
        {"arrays": 3},
        {"arrays": [["k", "|O", [1]]]},
        {"arrays": [["k", "<f4", [-1]]]},
        {"arrays": [["k", "<f4", [2**62, 2**62]]]},
        {"arrays": [["k", "<f4", [1e3]]]},
        {"arrays": [["k", "<f4", [True]]]},
        {"arrays": [["k", "<f4", [1] * 60]]},
        {"arrays": [["k", "<f4", 4]]},
        {"arrays": [["k", ["<f4"], [4]]]},
        {"arrays": [[["k"], "<f4", [4]]]},
        {"arrays": [["k", "<f4", [10**9]]]},
        {"arrays": [["positions", "|u1", [0]], ["positions", "|u1", [0]]]},
    ],
)
def test_a_forged_list_of_contents(
    tmp_path: Path, intact: tuple[Path, bytes], contents: bytes | dict[str, object]
) -> None:
    path, data = intact
    path.write_bytes(forge(data))
    assert opens(tmp_path), "the forger works"
    (n_json,) = struct.unpack_from("<I", data, 12)
    good = json.loads(data[40 : 40 + n_json])
    text = contents if isinstance(contents, bytes) else json.dumps(good | contents).encode()
    path.write_bytes(forge(data, text=text))
    assert not opens(tmp_path)
    assert not path.exists()


@pytest.mark.parametrize("field", ["n_tokens", "json_bytes"])
@pytest.mark.parametrize("value", [2**24 + 1, 2**31, 2**32 - 1])
def test_sizes_that_the_file_does_not_hold_allocate_nothing(
    tmp_path: Path, intact: tuple[Path, bytes], field: str, value: int
) -> None:
    path, data = intact
    path.write_bytes(forge(data, n_tokens=value) if field == "n_tokens" else forge(data, json_bytes=value))
    tracemalloc.start()
    assert not opens(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@given(data=st.binary(max_size=300), after_magic=st.booleans())
@settings(deadline=None, max_examples=30)
def test_any_bytes_are_no_snapshot(tmp_path_factory: pytest.TempPathFactory, data: bytes, after_magic: bool) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    snapshot = store(folder).save([7, 8, 9], {})
    assert snapshot is not None
    snapshot.path.write_bytes(b"PYGGMLKV\1\0\0\0" * after_magic + data)
    assert not opens(folder)


def test_things_that_are_no_plain_files_are_left_alone(tmp_path: Path, intact: tuple[Path, bytes]) -> None:
    path, _ = intact
    os.mkfifo(path.parent / "fifo.kv1")
    (path.parent / "folder.kv1").mkdir()
    (path.parent / "link.kv1").symlink_to(path)
    (path.parent / "notes.txt").write_text("mine")
    assert opens(tmp_path)
    assert store(tmp_path, max_bytes=path.stat().st_size + 300).save([1], {}) is not None
    assert sorted(p.name for p in path.parent.iterdir() if p.name[0] in "fln") == [
        "fifo.kv1",
        "folder.kv1",
        "link.kv1",
        "notes.txt",
    ]


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    size = store(tmp_path / "probe").save([0], ARRAYS)
    assert size is not None
    one = store(tmp_path, max_bytes=3 * size.n_bytes)
    other = store(tmp_path, max_bytes=3 * size.n_bytes, model_key="another")
    for n, where in enumerate([one, other, one]):
        saved = where.save([n], ARRAYS)
        assert saved is not None
        age(saved.path, 100 - n)
    first = one.find([0])
    assert first is not None and one.load(first) is not None  # used now: the other model's is the oldest
    one.save([3], ARRAYS)
    assert other.find([1]) is None
    assert all(one.find([n]) is not None for n in (0, 2, 3))
    one.save([4], ARRAYS)
    assert one.find([2]) is None
    assert one.n_bytes <= 3 * size.n_bytes


def test_what_is_larger_than_the_bound_is_not_saved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keep = store(tmp_path).save([1], {})
    small = store(tmp_path, max_bytes=500)
    assert small.save([2], {"x": np.zeros(1000)}) is None
    assert "over the bound" in caplog.text
    assert small.save([2], {"x": np.zeros(30)}, {"note": "x" * 300}) is None
    assert keep is not None and keep.path.exists()
    assert len(list(keep.path.parent.iterdir())) == 1


def test_a_disk_that_refuses_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    refused = store(tmp_path / "file")
    assert refused.save([1], ARRAYS) is None
    assert "cannot save" in caplog.text
    assert refused.find([1]) is None


def test_a_snapshot_that_went_away_loads_as_none(tmp_path: Path) -> None:
    one = store(tmp_path)
    one.save([1], ARRAYS)
    found = one.find([1])
    assert found is not None
    found.path.unlink()
    assert one.load(found) is None
    assert one.find([1]) is None


def test_mapped_arrays_outlive_their_file(tmp_path: Path) -> None:
    one = store(tmp_path)
    saved = one.save([1], ARRAYS)
    assert saved is not None
    arrays = one.load(saved)
    one.remove(saved)
    assert arrays is not None
    np.testing.assert_array_equal(arrays["k.0"], ARRAYS["k.0"])


def test_leftovers_of_a_crash_are_cleared_away(tmp_path: Path) -> None:
    saved = store(tmp_path).save([1], {})
    assert saved is not None
    old, young = saved.path.parent / "x1.tmp", saved.path.parent / "x2.tmp"
    for path in (old, young):
        path.write_bytes(b"x")
    age(old, 4000)
    store(tmp_path).save([2], {})
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize("ids", [[], [-1], [2**31], [2**70], ["x"], [[1]]])
def test_tokens_that_are_none(tmp_path: Path, ids: list[int]) -> None:
    with pytest.raises(ParameterError, match="token"):
        store(tmp_path).save(ids, {})


def test_what_the_format_cannot_keep(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="'x' is object"):
        store(tmp_path).save([1], {"x": np.array([object()])})
    with pytest.raises(ParameterError, match="note 'n' is float"):
        store(tmp_path).save([1], {}, {"n": 0.5})  # type: ignore[dict-item]
    with pytest.raises(ParameterError, match="more than"):
        store(tmp_path).save([1], {}, {"n": "x" * (1 << 20)})
    assert files(tmp_path) == [] and list(tmp_path.glob("*/*")) == []


@pytest.mark.parametrize(("max_bytes", "key"), [(-1, "x"), (1, "")])
def test_options_out_of_range(tmp_path: Path, max_bytes: int, key: str) -> None:
    with pytest.raises(ParameterError):
        SnapshotStore(tmp_path, max_bytes=max_bytes, model_key=key)


CHILD = """
import sys
import numpy as np
from pyggml.engine.snapshots import SnapshotStore
me, folder, bound = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store = SnapshotStore(folder, max_bytes=bound, model_key="shared")
loaded = 0
for n in range(40):
    ids = [n % 7, n % 5, me]
    assert store.save(ids, {"x": np.full(1000, n % 7 * 10 + n % 5)}) is not None
    for first in range(7):
        if (found := store.find([first, n % 5])) and (arrays := store.load(found)):
            at = found.path.name
            assert len(set(arrays["x"].tolist())) == 1 and int(arrays["x"][0]) // 10 == first, at
            loaded += 1
print(loaded)
"""


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    bound = 10 * 8400
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(n), str(tmp_path), str(bound)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(2)
    ]
    for child in children:
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err
        assert "removed, because" not in err
        assert int(out) > 40
    assert 0 < store(tmp_path, model_key="shared").n_bytes <= bound
    assert list(tmp_path.glob("*/*.tmp")) == []
