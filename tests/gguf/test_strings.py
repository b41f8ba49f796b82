"""Arrays of strings that are decoded when they are looked at."""

import operator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyggml.gguf import GGUFFile, GGUFWriter, StringArray, ValueType, copy_gguf


def write(path: Path, texts: list[str]) -> Path:
    writer = GGUFWriter(path, architecture="llama")
    writer.add("texts", texts, item=ValueType.STRING)
    writer.write()
    return path


@given(texts=st.lists(st.text(), max_size=8), index=st.integers(-10, 10), step=st.integers(-3, 3).filter(bool))
def test_it_is_the_list(tmp_path_factory: pytest.TempPathFactory, texts: list[str], index: int, step: int) -> None:
    path = write(tmp_path_factory.mktemp("strings") / "a.gguf", texts)
    with GGUFFile(path) as file:
        array = file.metadata["texts"]
    assert isinstance(array, StringArray)
    assert len(array) == len(texts) and list(array) == texts and array == texts
    assert not operator.ne(array, texts)
    assert array[index::step] == texts[index::step]
    assert array != [*texts, "x"]
    assert not texts or array != [*texts[:-1], texts[-1] + "x"]
    if -len(texts) <= index < len(texts):
        assert array[index] == texts[index]
    else:
        with pytest.raises(IndexError, match=str(index)):
            array[index]


def test_bytes_that_are_no_text_and_copies(tmp_path: Path) -> None:
    raw = b"\xff\xfe".decode("utf-8", "surrogateescape")
    path = write(tmp_path / "a.gguf", [raw, "", "ü"])
    with GGUFFile(path) as one:
        copy_gguf(one, tmp_path / "b.gguf")
    with GGUFFile(path) as one, GGUFFile(tmp_path / "b.gguf") as other:
        assert one.metadata["texts"][0] == raw
        assert one.metadata["texts"] == other.metadata["texts"]
        assert repr(one.metadata["texts"]) == "<3 strings: '\\udcff\\udcfe', '', 'ü'>"
