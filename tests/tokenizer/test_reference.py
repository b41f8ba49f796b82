"""llama.cpp's own test vectors: every vocabulary file that comes with expected ids."""

import hashlib
from functools import cache
from pathlib import Path

import pytest

from pyggml.gguf import GGUFFile
from pyggml.tokenizer import StreamDecoder, Tokenizer

from . import vocabs
from .vocabs import VocabsMissing, vocab_folder

pytestmark = pytest.mark.model

WITH_VECTORS = (
    *("bert-bge", "command-r", "deepseek-coder", "deepseek-llm", "falcon", "gemma-4", "gpt-2", "llama-bpe"),
    *("llama-spm", "mpt", "phi-3", "qwen2", "qwen35", "refact", "starcoder"),
)
WITHOUT_VECTORS = ("aquila", "baichuan", "gpt-neox", "nomic-bert-moe")


@pytest.fixture(scope="session")
def folder() -> Path:
    try:
        return vocab_folder()
    except VocabsMissing as error:
        pytest.fail(str(error))


@cache
def load(folder: Path, name: str) -> Tokenizer:
    with GGUFFile(folder / f"ggml-vocab-{name}.gguf") as file:
        return Tokenizer.from_metadata(file.metadata)


def read_vectors(folder: Path, name: str) -> list[tuple[str, list[int]]]:
    stem = folder / f"ggml-vocab-{name}.gguf"
    inputs = Path(f"{stem}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    outputs = Path(f"{stem}.out").read_text().splitlines()
    # The file of inputs ends with a separator.
    assert len(inputs) - 1 <= len(outputs) <= len(inputs) and len(outputs) >= 46
    return [(text, [int(id) for id in line.split()]) for text, line in zip(inputs, outputs, strict=False)]


def test_what_the_build_downloaded_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """77 MB are not fetched twice; a file of that name that is another is not taken."""
    monkeypatch.setattr(vocabs, "SHA256", hashlib.sha256(b"the archive").hexdigest())
    assert vocabs.kept_download(tmp_path / "nothing") is None
    archive = tmp_path / "llama_cpp_python-0.3.36.tar.gz"
    archive.write_bytes(b"the archi")
    assert vocabs.kept_download(tmp_path) is None
    archive.write_bytes(b"the archive")
    assert vocabs.kept_download(tmp_path) == archive


def test_no_vector_is_left_out(folder: Path) -> None:
    names = {path.name.removeprefix("ggml-vocab-").removesuffix(".gguf") for path in folder.glob("*.gguf")}
    assert names == {*WITH_VECTORS, *WITHOUT_VECTORS}
    assert {path.name.removeprefix("ggml-vocab-").removesuffix(".gguf.inp") for path in folder.glob("*.inp")} == set(
        WITH_VECTORS
    )


@pytest.mark.parametrize("name", WITH_VECTORS)
def test_ids_equal_llama_cpp(folder: Path, name: str) -> None:
    tokenizer = load(folder, name)
    for text, expected in read_vectors(folder, name):
        assert tokenizer.encode(text, add_special=False) == expected, repr(text)
        if name != "bert-bge":  # lower case, no accents: what was lost cannot come back
            assert tokenizer.decode(expected, skip_special=False) == text
        stream = StreamDecoder(tokenizer)
        assert "".join(map(stream.push, expected)) + stream.flush() == tokenizer.decode(expected)


@pytest.mark.parametrize("name", WITHOUT_VECTORS)
def test_text_comes_back(folder: Path, name: str) -> None:
    tokenizer = load(folder, name)
    for text, _ in read_vectors(folder, "gpt-2"):
        decoded = tokenizer.decode(tokenizer.encode(text, add_special=False))
        if name == "nomic-bert-moe":  # normalises (NFKC, white space) and knows no bytes
            assert decoded.isspace() == text.isspace() or decoded == ""
        else:
            assert decoded == text


@pytest.mark.parametrize(
    ("name", "bos", "ends"),
    [
        ("llama-bpe", "<|begin_of_text|>", {"<|end_of_text|>", "<|eot_id|>"}),
        ("gemma-4", "<bos>", {"<eos>", "<turn|>", "<|tool_response>"}),
        ("phi-3", "<s>", {"</s>", "<|endoftext|>", "<|end|>"}),
        ("llama-spm", "<s>", {"</s>"}),
    ],
)
def test_special_tokens(folder: Path, name: str, bos: str, ends: set[str]) -> None:
    tokenizer = load(folder, name)
    assert tokenizer.encode("x")[0] == tokenizer.bos_id == tokenizer.token_id(bos)
    assert {tokenizer.token_text(id) for id in tokenizer.eog_ids} == ends
