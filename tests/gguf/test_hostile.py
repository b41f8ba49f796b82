"""Files that lie: each must end in a GGUFError that names the file and the field, quickly and without big
allocations.
"""

import struct
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyggml.gguf import GGUFError, GGUFFile


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def header(n_tensors: int = 0, n_keys: int = 0, *, version: int = 3, magic: bytes = b"GGUF") -> bytes:
    return magic + struct.pack("<IQQ", version, n_tensors, n_keys)


def u32(key: str, value: int) -> bytes:
    return string(key) + struct.pack("<II", 4, value)


def array(key: str, item: int, n: int, data: bytes = b"") -> bytes:
    return string(key) + struct.pack("<IIQ", 9, item, n) + data


def tensor(name: str | bytes, dims: list[int], *, kind: int = 0, offset: int = 0, n_dims: int | None = None) -> bytes:
    n = len(dims) if n_dims is None else n_dims
    return string(name) + struct.pack(f"<I{len(dims)}QIQ", n, *dims, kind, offset)


ZEROS = bytes(4096)
HUGE = 1 << 62

BAD = {
    "empty": (b"", "magic"),
    "short magic": (b"GG", "magic"),
    "other magic": (header(magic=b"GGML"), "magic"),
    "swapped magic": (header(magic=b"FUGG"), "magic.*byte-swapped"),
    "only magic": (b"GGUF", "version"),
    "version 1": (header(version=1) + ZEROS, "version 1"),
    "version 4": (header(version=4) + ZEROS, "version 4"),
    "big endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "no counts": (b"GGUF" + struct.pack("<I", 3), "tensor count"),
    "too many tensors": (header(HUGE) + ZEROS, "tensor count"),
    "tensor count beyond file": (header(1000) + bytes(100), "tensor count"),
    "too many keys": (header(0, HUGE) + ZEROS, "metadata count"),
    "key count beyond file": (header(0, 1000) + bytes(100), "metadata count"),
    "empty key": (header(0, 1) + u32("", 1) + ZEROS, "key 0.*empty"),
    "long key": (header(0, 1) + u32("k" * 70000, 1), "key 0.*70000"),
    "key longer than file": (header(0, 1) + struct.pack("<Q", 60000) + b"abcdefgh", "key 0.*truncated"),
    "same key twice": (header(0, 2) + u32("k", 1) + u32("k", 2), "key 'k'.*twice"),
    "unknown value type": (header(0, 1) + string("k") + struct.pack("<II", 13, 0), "key 'k'.*type 13"),
    "value cut off": (header(0, 1) + string("kk") + struct.pack("<I", 10) + b"123", "key 'kk'"),
    "huge string": (header(0, 1) + string("k") + struct.pack("<IQ", 8, HUGE), "key 'k'"),
    "string beyond file": (header(0, 1) + string("k") + struct.pack("<IQ", 8, 10_000), "key 'k'.*truncated"),
    "huge array": (header(0, 1) + array("k", 0, HUGE), "key 'k'.*array length"),
    "array beyond file": (header(0, 1) + array("k", 10, 1000, ZEROS), "key 'k'.*array length"),
    "huge string array": (header(0, 1) + array("k", 8, 1 << 40), "key 'k'.*array length"),
    "string array beyond file": (header(0, 1) + array("k", 8, 600, ZEROS), "key 'k'.*array length"),
    "string in array beyond file": (header(0, 1) + array("k", 8, 2, string("a") + b"\xff" * 8), r"'k'\[1\]"),
    "array of unknown type": (header(0, 1) + array("k", 99, 1, ZEROS), "key 'k'.*type 99"),
    "nested too deep": (header(0, 1) + string("k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 20, "deeper"),
    "many nested": (header(0, 1) + array("k", 9, 1 << 30, ZEROS), "array length"),
    "alignment 0": (header(0, 1) + u32("general.alignment", 0), "general.alignment.*power of two"),
    "alignment 48": (header(0, 1) + u32("general.alignment", 48), "general.alignment.*power of two"),
    "alignment text": (
        header(0, 1) + string("general.alignment") + struct.pack("<I", 8) + string("32"),
        "general.alignment.*uint32",
    ),
    "tensor without name": (header(1) + tensor("", [4]) + ZEROS, "tensor 0: name"),
    "tensor with NUL": (header(1) + tensor("a\0b", [4]) + ZEROS, "tensor 0: name"),
    "tensor with long name": (header(1) + tensor("x" * 65, [4]) + ZEROS, "tensor 0: name"),
    "five dimensions": (header(1) + tensor("x", [1] * 5) + ZEROS, "'x': n_dims.*5"),
    "many dimensions": (header(1) + tensor("x", [1], n_dims=1 << 31) + ZEROS, "'x': n_dims"),
    "dimension overflow": (header(1) + tensor("x", [1 << 32, 1 << 32]) + ZEROS, "'x': dimension 1.*overflow"),
    "huge dimension": (header(1) + tensor("x", [1 << 63]) + ZEROS, "'x': dimension 0.*overflow"),
    "zero hides overflow": (header(1) + tensor("x", [0, 1 << 63]) + ZEROS, "'x': dimension 1.*overflow"),
    "unknown type": (header(1) + tensor("x", [4], kind=1000) + ZEROS, "'x': type.*1000"),
    "withdrawn type": (header(1) + tensor("x", [4], kind=4) + ZEROS, "'x': type.*withdrawn"),
    "part of a block": (header(1) + tensor("x", [33], kind=2) + ZEROS, "'x': dimension 0.*block of 32"),
    "misaligned": (header(1) + tensor("x", [4], offset=8) + ZEROS, "'x': offset.*alignment"),
    "beyond the end": (header(1) + tensor("x", [4], offset=1 << 20) + ZEROS, "'x': offset.*truncated"),
    "offset overflow": (header(1) + tensor("x", [4], offset=(1 << 64) - 32) + ZEROS, "'x': offset"),
    "too big": (header(1) + tensor("x", [1 << 40]) + ZEROS, "'x': offset.*truncated"),
    "same tensor twice": (header(2) + tensor("x", [4]) + tensor("x", [4], offset=32) + ZEROS, "'x'.*twice"),
    "overlap": (header(2) + tensor("x", [16]) + tensor("y", [4], offset=32) + ZEROS, "'y': offset.*overlaps.*'x'"),
    "same place": (header(2) + tensor("x", [4]) + tensor("y", [4]) + ZEROS, "overlaps"),
    "split without siblings": (
        header(0, 1) + string("split.count") + struct.pack("<IH", 2, 3),
        "must be called NAME-00001-of-00003",
    ),
    "absurd split": (header(0, 1) + u32("split.count", 1 << 30), "split.count"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file(case: str, tmp_path: Path) -> None:
    data, message = BAD[case]
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(GGUFError, match=message) as caught:
            GGUFFile(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(str(path))


def test_every_truncation_is_told(small_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    data_end = len(small_bytes.rstrip(b"\0"))
    for n in range(data_end - 8):
        path.write_bytes(small_bytes[:n])
        with pytest.raises(GGUFError):
            GGUFFile(path)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.one_of(st.none(), st.integers(0, 10**6)),
)
def test_mutations_give_a_file_or_a_gguf_error(
    small_bytes: bytes, tmp_path: Path, edits: list[tuple[int, int]], cut: int | None
) -> None:
    data = bytearray(small_bytes)
    for place, value in edits:
        data[place % len(data)] = value
    if cut is not None:
        del data[cut % len(data) :]
    path = tmp_path / "mutated.gguf"
    path.write_bytes(data)
    start = time.process_time()
    try:
        with GGUFFile(path) as file:
            for name, info in file.tensors.items():
                assert len(file.data(name)) == info.n_bytes
    except GGUFError:
        pass
    assert time.process_time() - start < 2


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.integers(0, 10**6),
    value=st.one_of(st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1]), st.integers(0, 2**64 - 1)),
)
def test_numbers_put_anywhere_in_the_header(small_bytes: bytes, tmp_path: Path, place: int, value: int) -> None:
    data = bytearray(small_bytes)
    place %= len(data) - 8
    data[place : place + 8] = struct.pack("<Q", value)
    path = tmp_path / "mutated.gguf"
    path.write_bytes(data)
    with suppress(GGUFError):
        GGUFFile(path).close()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_noise_behind_the_header(tmp_path: Path, noise: bytes) -> None:
    path = tmp_path / "noise.gguf"
    path.write_bytes(header(1, 1) + noise)
    with suppress(GGUFError):
        GGUFFile(path).close()


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        GGUFFile(tmp_path / "absent.gguf")
    with pytest.raises(IsADirectoryError):
        GGUFFile(tmp_path)
