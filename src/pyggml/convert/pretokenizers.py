"""Which name of ``tokenizer.ggml.pre`` stands for the pre-tokenizer of a ``tokenizer.json``."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from tokenizers import Tokenizer

from pyggml.convert.fingerprints import FINGERPRINTS, PROBE
from pyggml.errors import TokenizerError

__all__ = ["is_byte_level", "pre_tokenizer_name"]

_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"


def _plain(digits: str) -> str:
    return rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*{_TAIL}"


def _cased(digits: str, suffix: str) -> str:
    start = r"[^\r\n\p{L}\p{N}]?"
    words = f"{start}{_UPPER}*{_LOWER}+{suffix}|{start}{_UPPER}+{_LOWER}*{suffix}"
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{_TAIL}"


_GPT2, _DIGITS = "(gpt2)", "(digits)"
# what is done in turn, and whether words that are tokens are taken whole → name
_KNOWN: Final[Mapping[tuple[tuple[str, ...], bool], str]] = MappingProxyType(
    {
        ((_GPT2,), False): "gpt-2",
        ((_DIGITS, _GPT2), False): "smollm",
        ((_plain(r"\p{N}{1,3}"),), True): "llama-bpe",
        ((_plain(r"\p{N}{1,3}"),), False): "dbrx",
        ((_plain(r"\p{N}"),), False): "qwen2",
        ((_cased(r"\p{N}{1,3}", _CONTRACTIONS + "?"),), False): "gpt-4o",
        ((_cased(r"\p{N}", ""),), True): "tekken",
    }
)


def is_byte_level(document: Mapping[str, Any]) -> bool:
    """Whether the tokens are spelled in GPT-2's alphabet of bytes."""
    parts = [*_parts(document.get("pre_tokenizer"), "pretokenizers"), *_parts(document.get("decoder"), "decoders")]
    return any(part.get("type") == "ByteLevel" for part in parts)


def pre_tokenizer_name(document: Mapping[str, Any]) -> str:
    """The name for a byte-level BPE tokenizer.

    The ids of a probe text tell published vocabularies apart, as they do for llama.cpp. Other vocabularies (enlarged,
    cut down) are known by what their pre-tokenizer consists of.

    Args:
        document: A ``tokenizer.json`` that was read.

    Raises:
        TokenizerError: the document is broken, or neither way knows it.
    """
    text = json.dumps(document)
    try:
        tokenizer = Tokenizer.from_str(text)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        ids = tokenizer.encode(PROBE).ids
    except BaseException as error:  # a panic of the library is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        raise TokenizerError(f"tokenizer.json cannot be used: {str(error)[:200]}") from None
    name = FINGERPRINTS.get(hashlib.sha256(str(ids).encode()).hexdigest())
    if name is None:
        model = document.get("model")
        whole = isinstance(model, Mapping) and model.get("ignore_merges") is True
        name = _KNOWN.get((tuple(_steps(document.get("pre_tokenizer"))), whole))
    if name is None:
        raise TokenizerError("the pre-tokenizer of tokenizer.json is none that GGUF has a name for")
    return name


def _parts(value: Any, key: str) -> Iterator[Mapping[str, Any]]:
    if not isinstance(value, Mapping):
        return
    if value.get("type") == "Sequence":
        inner = value.get(key)
        for part in inner if isinstance(inner, list) else ():
            yield from _parts(part, key)
    else:
        yield value


def _steps(pre_tokenizer: Any) -> Iterator[str]:
    for part in _parts(pre_tokenizer, "pretokenizers"):
        match part:
            case {"type": "ByteLevel"}:
                if part.get("add_prefix_space") is True:
                    yield "(space)"  # which no name stands for
                if part.get("use_regex", True) is True:
                    yield _GPT2
            case {"type": "Digits", "individual_digits": True}:
                yield _DIGITS
            # what is left out between matches is nothing, for expressions that match everything
            case {"type": "Split", "pattern": {"Regex": str(regex)}, "behavior": "Isolated", "invert": False}:
                yield regex
            case {"type": "Split", "pattern": {"Regex": str(regex)}, "behavior": "Removed", "invert": True}:
                yield regex
            case _:
                yield f"({part.get('type')})"
