"""A small valid model file, as bytes."""

from pathlib import Path

import numpy as np
import pytest

from pyggml.gguf import GGMLType, GGUFWriter, ValueType


def write_small(path: Path) -> Path:
    """A file with every kind of value, nested arrays and four tensors of three types."""
    writer = GGUFWriter(path, architecture="llama")
    for kind, value in (
        (ValueType.UINT8, 255),
        (ValueType.INT8, -128),
        (ValueType.UINT16, 65535),
        (ValueType.INT16, -32768),
        (ValueType.UINT32, 2**32 - 1),
        (ValueType.INT32, -(2**31)),
        (ValueType.FLOAT32, 0.5),
        (ValueType.BOOL, True),
        (ValueType.STRING, "grüße 🐍"),
        (ValueType.UINT64, 2**64 - 1),
        (ValueType.INT64, -(2**63)),
        (ValueType.FLOAT64, 1e300),
    ):
        writer.add(f"one.{kind.name.lower()}", value, type=kind)
        values = [value, value] if kind is not ValueType.BOOL else [True, False]
        writer.add(f"many.{kind.name.lower()}", values, item=kind)
    writer.add("llama.block_count", 2)
    writer.add("llama.attention.head_count_kv", [1, 2])
    writer.add("nested", [[1, 2], [3]], item=ValueType.INT16)
    writer.add("raw", b"\xff\xfe bytes")
    writer.add_tensor("a.weight", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.add_tensor("b.weight", np.ones((2, 2, 2), np.float16))
    writer.add_tensor("q.weight", bytes(range(36)), type=GGMLType.Q4_0, shape=(32, 2))
    writer.add_tensor("s", np.array(7, np.int64))
    writer.write()
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The small file on disk."""
    return write_small(tmp_path / "small.gguf")


@pytest.fixture(scope="session")
def small_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The small file's content."""
    return write_small(tmp_path_factory.mktemp("gguf") / "small.gguf").read_bytes()
