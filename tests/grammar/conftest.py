"""Compilers that the tests of this room share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyggml.gguf import GGUFFile
from pyggml.grammar import GrammarCompiler
from pyggml.tokenizer import Tokenizer

from .walks import small_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


@pytest.fixture(scope="session")
def compiler(tokenizer: Tokenizer) -> Iterator[GrammarCompiler]:
    with GrammarCompiler(tokenizer) as compiler:
        yield compiler


def _real(path: Path) -> Tokenizer:
    with GGUFFile(path) as file:
        return Tokenizer.from_metadata(file.metadata)


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> Tokenizer:
    return _real(smollm2_path)


@pytest.fixture(scope="session")
def gemma3(gemma3_path: Path) -> Tokenizer:
    return _real(gemma3_path)


@pytest.fixture(scope="session")
def smollm2_compiler(smollm2: Tokenizer) -> Iterator[GrammarCompiler]:
    with GrammarCompiler(smollm2) as compiler:
        yield compiler


@pytest.fixture(scope="session")
def gemma3_compiler(gemma3: Tokenizer) -> Iterator[GrammarCompiler]:
    """As if the model's logits were padded."""
    with GrammarCompiler(gemma3, n_vocab=gemma3.n_vocab + 65) as compiler:
        yield compiler
