"""The safetensors reader: valid files, and files that lie."""

import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import pack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyggml.convert import SafetensorsFile
from pyggml.errors import ClosedError, ModelError


def raw(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_tensors_of_all_types(tmp_path: Path) -> None:
    arrays = {
        "f32": np.arange(6, dtype=np.float32).reshape(2, 3),
        "f16": np.array([0.5, -2], np.float16),
        "i64": np.array([[-5]], np.int64),
        "u8": np.arange(3, dtype=np.uint8),
        "bool": np.array([True, False]),
        "empty": np.zeros((0, 4), np.float32),
        "scalar": np.array(3.0),
    }
    path = tmp_path / "x.safetensors"
    path.write_bytes(pack(arrays))
    with SafetensorsFile(path) as file:
        assert set(file.tensors) == set(arrays)
        for name, array in arrays.items():
            assert file.tensors[name].shape == array.shape
            assert file.numpy(name).dtype == array.dtype
            assert np.array_equal(file.numpy(name), array)
        kept = file.numpy("f32")
    assert kept.sum() == 15
    with pytest.raises(ClosedError):
        file.numpy("f32")


def test_bfloat16_becomes_float32_exactly(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3.140625, np.inf], np.float32)
    data = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw({"__metadata__": {"format": "pt"}, "x": entry("BF16", [4], [0, 8])}, data))
    with SafetensorsFile(path) as file:
        assert file.numpy("x").dtype == np.float32
        assert np.array_equal(file.numpy("x"), values)


BAD = {
    "empty": b"",
    "short": b"1234567",
    "huge header": struct.pack("<Q", 1 << 62) + b"{}",
    "header over the cap": struct.pack("<Q", 100_000_001) + b"{}",
    "header beyond the end": struct.pack("<Q", 100) + b"{}",
    "no JSON": raw(b"{]"),
    "not UTF-8": raw(b'{"\xff": 1}'),
    "deep JSON": raw(b"[" * 100000),
    "a list": raw([]),
    "no object": raw({"x": 5}),
    "unknown type": raw({"x": entry("F8_X")}, bytes(8)),
    "type no text": raw({"x": entry(["F32"])}, bytes(8)),
    "no shape": raw({"x": entry(shape=None)}, bytes(8)),
    "negative shape": raw({"x": entry(shape=[-2])}, bytes(8)),
    "float shape": raw({"x": entry(shape=[2.0])}, bytes(8)),
    "bool shape": raw({"x": entry(shape=[True, 2])}, bytes(8)),
    "many dimensions": raw({"x": entry(shape=[1] * 17, offsets=[0, 4])}, bytes(4)),
    "overflow": raw({"x": entry(shape=[1 << 40, 1 << 40])}, bytes(8)),
    "no offsets": raw({"x": entry(offsets=[0])}, bytes(8)),
    "negative offsets": raw({"x": entry(offsets=[-8, 0])}, bytes(8)),
    "swapped offsets": raw({"x": entry(offsets=[8, 0])}, bytes(8)),
    "wrong size": raw({"x": entry(offsets=[0, 4])}, bytes(8)),
    "beyond the end": raw({"x": entry()}, bytes(4)),
    "rest at the end": raw({"x": entry()}, bytes(12)),
    "gap": raw({"x": entry(), "y": entry(offsets=[12, 20])}, bytes(20)),
    "overlap": raw({"x": entry(), "y": entry(offsets=[4, 12])}, bytes(12)),
    "same place": raw({"x": entry(), "y": entry()}, bytes(8)),
    "same name twice": raw(b'{"x":' + json.dumps(entry()).encode() + b',"x":' + json.dumps(entry()).encode() + b"}"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file(case: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(BAD[case])
    with pytest.raises(ModelError, match=r"bad\.safetensors"):
        SafetensorsFile(path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.one_of(st.none(), st.integers(0, 10**4)),
)
def test_mutations(tmp_path: Path, edits: list[tuple[int, int]], cut: int | None) -> None:
    data = bytearray(pack({"a": np.zeros(3, np.float32), "b": np.zeros((2, 2), np.int16)}))
    for place, value in edits:
        data[place % len(data)] = value
    if cut is not None:
        del data[cut % len(data) :]
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with suppress(ModelError), SafetensorsFile(path) as file:
        for name, info in file.tensors.items():
            assert file.numpy(name).shape == info.shape
