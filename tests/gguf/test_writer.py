"""Writing; the `gguf` package and our own reader are the oracles."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gguf
from pyggml.gguf import GGMLType, GGUFError, GGUFFile, GGUFWriter, ValueType, copy_gguf

KINDS = [k for k in ValueType if k is not ValueType.ARRAY]


def values(kind: ValueType) -> st.SearchStrategy[Any]:
    if kind is ValueType.STRING:
        return st.text()
    if kind is ValueType.BOOL:
        return st.booleans()
    if kind in (ValueType.FLOAT32, ValueType.FLOAT64):
        return st.floats(width=32, allow_nan=False)
    info = np.iinfo(kind.numpy_dtype)
    return st.integers(int(info.min), int(info.max))


def test_the_gguf_package_reads_it(small: Path) -> None:
    reader = gguf.GGUFReader(small)
    for kind in KINDS:
        assert reader.fields[f"one.{kind.name.lower()}"].types == [gguf.GGUFValueType(kind.value)]
        assert reader.fields[f"many.{kind.name.lower()}"].types[-1] == gguf.GGUFValueType(kind.value)
    assert reader.fields["one.string"].contents() == "grüße 🐍"
    assert reader.fields["one.uint64"].contents() == 2**64 - 1
    assert reader.fields["many.int16"].contents() == [-32768, -32768]
    assert [t.name for t in reader.tensors] == ["a.weight", "b.weight", "q.weight", "s"]
    assert reader.tensors[0].data.tolist() == np.arange(12).reshape(3, 4).tolist()
    assert reader.tensors[2].tensor_type == gguf.GGMLQuantizationType.Q4_0


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_values_come_back(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "x.gguf"
    kind = data.draw(st.sampled_from(KINDS))
    one = data.draw(values(kind))
    many = data.draw(st.lists(values(kind), max_size=5))
    nested = data.draw(st.lists(st.lists(values(kind), max_size=3), min_size=1, max_size=3))
    writer = GGUFWriter(path)
    writer.add("one", one, type=kind)
    writer.add("many", many, type=ValueType.ARRAY, item=kind)
    writer.add("nested", nested, item=kind)
    writer.write()
    with GGUFFile(path) as file:
        assert file.metadata["one"] == one
        assert list(file.metadata["many"]) == many
        assert [list(v) for v in file.metadata["nested"]] == nested
        assert (file.types["one"].type, file.types["many"].item) == (kind, kind)


def test_integers_around_two_to_the_63rd_stay_exact(tmp_path: Path) -> None:
    path, numbers = tmp_path / "x.gguf", [0, 2**63, 2**64 - 1]
    writer = GGUFWriter(path)
    writer.add("many", numbers, item=ValueType.UINT64)
    writer.write()
    with GGUFFile(path) as file:
        assert list(file.metadata["many"]) == numbers
    with pytest.raises(GGUFError, match="fit UINT64"):
        GGUFWriter(path).add("many", [0, 2**63, 2.5], item=ValueType.UINT64)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (True, "bool"),
        (1, "uint32"),
        (-1, "int32"),
        (2**32, "uint64"),
        (-(2**40), "int64"),
        (1.5, "float32"),
        ("x", "string"),
        (np.int8(3), "int8"),
        (np.float64(3), "float64"),
        ([1, 2], "int32[2]"),
        ([2**31], "uint32[1]"),
        ([1, 2.5], "float32[2]"),
        (["a"], "string[1]"),
        ([True], "bool[1]"),
        (np.zeros(3, np.uint16), "uint16[3]"),
        (np.zeros((2, 3), np.int16), "array[2]"),
    ],
)
def test_types_are_found(tmp_path: Path, value: Any, stored: str) -> None:
    writer = GGUFWriter(tmp_path / "x.gguf")
    writer.add("k", value)
    writer.write()
    with GGUFFile(tmp_path / "x.gguf") as file:
        assert str(file.types["k"]) == stored


@pytest.mark.parametrize(
    ("value", "options"),
    [
        (None, {}),
        ({"a": 1}, {}),
        ([], {}),
        ([1, "a"], {}),
        (2**64, {}),
        (256, {"type": ValueType.UINT8}),
        (-1, {"type": ValueType.UINT32}),
        (1.5, {"type": ValueType.INT32}),
        ("x", {"type": ValueType.INT32}),
        (1, {"type": ValueType.STRING}),
        (1, {"type": ValueType.ARRAY}),
        ([1], {"type": ValueType.INT32}),
        ([300], {"item": ValueType.INT8}),
        ([1], {"item": ValueType.BOOL}),
        (np.zeros(2, np.complex64), {}),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path: Path, value: Any, options: dict[str, Any]) -> None:
    with pytest.raises(GGUFError, match=r"x\.gguf: key 'k'"):
        GGUFWriter(tmp_path / "x.gguf").add("k", value, **options)


def test_names_and_shapes_are_checked(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "x.gguf", architecture="a")
    with pytest.raises(GGUFError, match="added twice"):
        writer.add("general.architecture", "b")
    for name in ("", "x" * 65, "a\0"):
        with pytest.raises(GGUFError, match="1 to 64 bytes"):
            writer.add_tensor(name, np.zeros(4, np.float32))
    with pytest.raises(GGUFError, match="type and shape"):
        writer.add_tensor("t", b"1234")
    with pytest.raises(GGUFError, match="cannot have the shape"):
        writer.add_tensor("t", b"1234", type=GGMLType.Q4_0, shape=(31,))
    with pytest.raises(GGUFError, match="cannot have the shape"):
        writer.add_tensor("t", np.zeros((1, 1, 1, 1, 1), np.float32))
    writer.add_tensor("t", np.zeros(4, np.float32))
    with pytest.raises(GGUFError, match="added twice"):
        writer.add_tensor("t", np.zeros(4, np.float32))
    with pytest.raises(GGUFError, match="power of two"):
        GGUFWriter(tmp_path / "x.gguf", alignment=48)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"old")
    writer = GGUFWriter(path)
    writer.add_tensor("t", b"123", type=GGMLType.F32, shape=(1,))
    with pytest.raises(GGUFError, match=r"its data has 3 bytes, F32 of shape .* has 4"):
        writer.write()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_tensors_are_streamed_one_at_a_time(tmp_path: Path) -> None:
    calls: list[str] = []

    def chunks() -> Iterator[bytes]:
        calls.append("chunks")
        yield bytes(10)
        yield bytes(6)

    def whole() -> np.ndarray:
        calls.append("array")
        return np.ones((2, 2), ">f4")

    writer = GGUFWriter(tmp_path / "x.gguf", alignment=128)
    writer.add_tensor("a", chunks, type=GGMLType.F32, shape=(4,))
    writer.add_tensor("b", whole, type=GGMLType.F32, shape=(2, 2))
    assert calls == []
    writer.write()
    assert calls == ["chunks", "array"]
    with GGUFFile(tmp_path / "x.gguf") as file:
        assert file.alignment == 128
        assert [t.offset % 128 for t in file.tensors.values()] == [0, 0]
        assert np.frombuffer(file.data("b"), "<f4").tolist() == [1.0] * 4


def test_copy_keeps_everything_and_applies_changes(small: Path, tmp_path: Path) -> None:
    with GGUFFile(small) as file:
        copy_gguf(file, tmp_path / "same.gguf")
        copy_gguf(file, tmp_path / "changed.gguf", changes={"one.int8": 5, "new": "x", "raw": None})
    assert (tmp_path / "same.gguf").read_bytes() == small.read_bytes()
    with GGUFFile(tmp_path / "changed.gguf") as file:
        assert (file.metadata["one.int8"], file.metadata["new"]) == (5, "x")
        assert "raw" not in file.metadata
