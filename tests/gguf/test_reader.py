"""Reading valid files; the `gguf` package is the oracle."""

import gc
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gguf
from pyggml.errors import ClosedError
from pyggml.gguf import GGMLType, GGUFFile, GGUFWriter, ValueType, file_type_name, parameter_count


def test_types_have_the_sizes_of_the_gguf_package() -> None:
    ours = {t.value: (t.block_size, t.type_size) for t in GGMLType}
    theirs = {t.value: size for t, size in gguf.GGML_QUANT_SIZES.items()}
    # the package counts an old layout of Q8_1, a type that stands in no file (ggml has two halves, not two
    # floats)
    del ours[GGMLType.Q8_1]
    common = ours.keys() & theirs.keys()
    assert {k: ours[k] for k in common} == {k: theirs[k] for k in common}
    assert len(common) >= 30


def test_every_kind_of_value(small: Path) -> None:
    with GGUFFile(small) as file:
        assert file.version == 3
        assert file.metadata["general.architecture"] == "llama"
        assert file.metadata["one.uint64"] == 2**64 - 1
        assert file.metadata["one.int8"] == -128
        assert file.metadata["one.bool"] is True
        assert file.metadata["one.string"] == "grüße 🐍"
        assert file.metadata["many.string"] == ["grüße 🐍", "grüße 🐍"]
        assert file.metadata["many.bool"].tolist() == [True, False]
        assert file.metadata["many.float64"].dtype == np.float64
        assert [list(v) for v in file.metadata["nested"]] == [[1, 2], [3]]
        for kind in ValueType:
            if kind is not ValueType.ARRAY:
                assert file.types[f"one.{kind.name.lower()}"].type is kind
                assert file.types[f"many.{kind.name.lower()}"].item is kind
                assert str(file.types[f"many.{kind.name.lower()}"]) == f"{kind.name.lower()}[2]"


def test_bytes_that_are_not_utf8_come_back_exactly(small: Path) -> None:
    with GGUFFile(small) as file:
        assert file.metadata["raw"].encode("utf-8", "surrogateescape") == b"\xff\xfe bytes"


def test_tensors(small: Path) -> None:
    with GGUFFile.open(small) as file:
        assert list(file.tensors) == ["a.weight", "b.weight", "q.weight", "s"]
        info = file.tensors["a.weight"]
        assert (info.shape, info.numpy_shape, info.type, info.n_bytes) == ((4, 3), (3, 4), GGMLType.F32, 48)
        assert info.offset % file.alignment == 0 and info.offset >= file.data_offset
        assert np.frombuffer(file.data("a.weight"), np.float32).tolist() == list(range(12))
        assert bytes(file.data("q.weight")) == bytes(range(36))
        assert file.tensors["s"].shape == (1,)
        assert parameter_count(file) == 12 + 8 + 64 + 1
        assert file.size == small.stat().st_size
        with pytest.raises(KeyError):
            file.data("missing")


def test_metadata_and_data_are_read_only(small: Path) -> None:
    with GGUFFile(small) as file:
        with pytest.raises(ValueError, match="read-only"):
            file.metadata["many.int32"][0] = 1
        assert file.data("a.weight").readonly
        with pytest.raises(TypeError):
            file.metadata["x"] = 1  # type: ignore[index]


def test_views_outlive_close(small: Path) -> None:
    file = GGUFFile(small)
    view = file.data("q.weight")
    file.close()
    file.close()
    gc.collect()
    assert bytes(view) == bytes(range(36))
    assert file.closed and file.metadata["llama.block_count"] == 2
    with pytest.raises(ClosedError, match=r"small\.gguf"):
        file.data("q.weight")


def test_file_type_name(tmp_path: Path) -> None:
    def name(file_type: int | None) -> str:
        writer = GGUFWriter(tmp_path / "x.gguf", architecture="llama")
        if file_type is not None:
            writer.add("general.file_type", file_type)
        writer.add_tensor("a", np.zeros(4, np.float32))
        writer.add_tensor("b", bytes(18 * 100), type=GGMLType.Q4_0, shape=(32, 100))
        writer.write()
        with GGUFFile(tmp_path / "x.gguf") as file:
            return file_type_name(file)

    assert name(None) == "Q4_0"
    for kind in (gguf.LlamaFileType.MOSTLY_Q4_K_M, gguf.LlamaFileType.MOSTLY_IQ4_XS, gguf.LlamaFileType.MOSTLY_F16):
        assert name(kind.value) == kind.name.removeprefix("MOSTLY_")


def test_files_of_the_gguf_package(tmp_path: Path) -> None:
    path = tmp_path / "theirs.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(3)
    writer.add_array("strings", ["a", "", "ü"])
    writer.add_array("ints", [1, -2, 3])
    writer.add_array("floats", [0.5, 1.5])
    writer.add_bool("flag", False)
    writer.add_custom_alignment(64)
    writer.add_tensor("x", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("y", np.arange(5, dtype=np.int32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GGUFFile(path) as file:
        assert file.alignment == 64
        assert file.metadata["llama.block_count"] == 3
        assert file.metadata["strings"] == ["a", "", "ü"]
        assert file.metadata["ints"].tolist() == [1, -2, 3]
        assert file.metadata["floats"].tolist() == [0.5, 1.5]
        assert file.metadata["flag"] is False
        assert file.tensors["x"].shape == (3, 2)
        assert np.frombuffer(file.data("y"), np.int32).tolist() == [0, 1, 2, 3, 4]


def test_version_2_is_read(small: Path) -> None:
    data = bytearray(small.read_bytes())
    data[4] = 2
    small.write_bytes(data)
    with GGUFFile(small) as file:
        assert file.version == 2 and len(file.tensors) == 4


def test_importing_loads_no_native_library_of_ours() -> None:
    code = "import sys, pyggml.gguf; print([m for m in sys.modules if m.startswith('pyggml._ffi')])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_large_vocabulary_is_read_fast(tmp_path: Path) -> None:
    n = 262_144
    writer = GGUFWriter(tmp_path / "vocab.gguf", architecture="gemma3")
    writer.add("tokenizer.ggml.tokens", [f"token▁{i}" for i in range(n)])
    writer.add("tokenizer.ggml.scores", np.zeros(n, np.float32))
    writer.add("tokenizer.ggml.token_type", np.ones(n, np.int32))
    writer.write()
    start = time.process_time()
    with GGUFFile(tmp_path / "vocab.gguf") as file:
        seconds = time.process_time() - start
        assert file.metadata["tokenizer.ggml.tokens"][-1] == f"token▁{n - 1}"
    assert seconds < 0.5


@pytest.mark.model
def test_real_models_match_the_gguf_package(smollm2_path: Path) -> None:
    theirs = gguf.GGUFReader(smollm2_path)
    with GGUFFile(smollm2_path) as file:
        assert [t.name for t in theirs.tensors] == list(file.tensors)
        for tensor in theirs.tensors:
            info = file.tensors[tensor.name]
            assert (info.offset, info.n_bytes) == (tensor.data_offset, tensor.n_bytes)
            assert info.shape == tuple(int(n) for n in tensor.shape)
        tokens = theirs.fields["tokenizer.ggml.tokens"].contents()
        assert tokens == file.metadata["tokenizer.ggml.tokens"]
        assert file_type_name(file) == "Q4_1"


@pytest.mark.model
def test_gemma3_opens_in_half_a_second(gemma3_path: Path) -> None:
    start = time.process_time()
    with GGUFFile(gemma3_path) as file:
        assert len(file.metadata["tokenizer.ggml.tokens"]) == 262_144
    assert time.process_time() - start < 0.5
