"""Tokenizers: text to token ids and back, built in memory from the metadata of a GGUF file."""

from pyggml.tokenizer.stream import StreamDecoder
from pyggml.tokenizer.tokenizer import Tokenizer
from pyggml.tokenizer.vocab import TokenType

__all__ = ["StreamDecoder", "TokenType", "Tokenizer"]
