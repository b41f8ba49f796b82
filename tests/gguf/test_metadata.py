"""Typed getters."""

from pathlib import Path

import pytest

from pyggml.gguf import GGUFError, GGUFFile, GGUFWriter, ModelMetadata


@pytest.fixture
def metadata(small: Path) -> ModelMetadata:
    with GGUFFile(small) as file:
        return ModelMetadata(file)


def test_the_prefix_is_put_in_front(metadata: ModelMetadata) -> None:
    assert metadata.architecture == "llama"
    assert metadata.get_int("block_count") == 2
    assert metadata.get_str("general.architecture") == "llama"
    assert "block_count" in metadata and "general.architecture" in metadata
    assert "rope.freq_base" not in metadata


def test_a_required_key_is_named_in_full(metadata: ModelMetadata) -> None:
    with pytest.raises(GGUFError, match=r"small\.gguf: key 'llama\.context_length': is required"):
        metadata.get_int("context_length")


def test_defaults(metadata: ModelMetadata) -> None:
    assert metadata.get_int("x", default=3) == 3
    assert metadata.get_float("x", default=1.5) == 1.5
    assert metadata.get_str("x", default="y") == "y"
    assert metadata.get_bool("x", default=True) is True
    assert metadata.get_ints("x", n=3, default=4) == (4, 4, 4)
    assert metadata.get_ints("x", default=(1, 2)) == (1, 2)


def test_one_integer_or_one_per_layer(metadata: ModelMetadata) -> None:
    assert metadata.get_ints("attention.head_count_kv", n=2) == (1, 2)
    assert metadata.get_ints("block_count", n=3) == (2, 2, 2)
    with pytest.raises(GGUFError, match="has 2 items, 3 are needed"):
        metadata.get_ints("attention.head_count_kv", n=3)


def test_wrong_types_are_told(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "x.gguf", architecture="a")
    writer.add("a.flag", True)
    writer.add("a.text", "5")
    writer.add("a.int", 5)
    writer.add("a.strings", ["x"])
    writer.add("a.floats", [1.0, 2.0])
    writer.write()
    with GGUFFile(tmp_path / "x.gguf") as file:
        metadata = ModelMetadata(file)
    for key in ("flag", "text", "strings", "floats"):
        with pytest.raises(GGUFError, match=f"key 'a.{key}': a value of type int is needed"):
            metadata.get_int(key, default=1)
    with pytest.raises(GGUFError, match="bool"):
        metadata.get_bool("int")
    with pytest.raises(GGUFError, match="integer"):
        metadata.get_ints("floats")
    with pytest.raises(GGUFError, match="array of strings"):
        metadata.get_strs("int")
    with pytest.raises(GGUFError, match="array of numbers"):
        metadata.get_array("strings")
    assert metadata.get_float("int") == 5.0
    assert metadata.get_floats("floats", n=2) == (1.0, 2.0)
    assert metadata.get_strs("strings") == ["x"]
    assert metadata.get_array("floats").tolist() == [1.0, 2.0]


def test_a_file_without_architecture(tmp_path: Path) -> None:
    GGUFWriter(tmp_path / "x.gguf").write()
    with GGUFFile(tmp_path / "x.gguf") as file, pytest.raises(GGUFError, match=r"general\.architecture"):
        ModelMetadata(file)
