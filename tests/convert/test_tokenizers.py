"""Vocabularies from ``tokenizer.json``: names of pre-tokenizers, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, pre_tokenizers

from pyggml.convert.fast_tokenizer import read_added_tokens, read_fast_tokenizer
from pyggml.convert.fingerprints import FINGERPRINTS, PROBE
from pyggml.convert.pretokenizers import _KNOWN, pre_tokenizer_name
from pyggml.convert.sentencepiece import read_sentencepiece
from pyggml.errors import TokenizerError
from pyggml.tokenizer.pretokenizers import PRE_TOKENIZERS, find_pre_tokenizer

PIECES = {
    "(gpt2)": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    "(digits)": pre_tokenizers.Digits(individual_digits=True),
}
TEXTS = (PROBE, "a\r\n\r\n  b\tc's 12345 ÄÖü iPhone 我想 ½ ٣٤ don't /path//x\n/ _a_ 'LL x̂", "\n", "  x", "")


def _document(pre: Any, **model: Any) -> dict[str, Any]:
    vocab = {chr(c): i for i, c in enumerate([*range(33, 127), *range(161, 173), *range(174, 324)])}
    return {"model": {"type": "BPE", "vocab": vocab, "merges": []} | model, "pre_tokenizer": pre}


def _split(pattern: str, **options: Any) -> dict[str, Any]:
    fields = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False} | options
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [fields, byte_level]}


@pytest.mark.parametrize(("steps", "whole"), _KNOWN)
def test_a_name_stands_for_the_same_cuts(steps: tuple[str, ...], whole: bool) -> None:
    """What ``tokenizer.json`` does, done by the library, against what the name means to our tokenizer."""
    kind = find_pre_tokenizer(_KNOWN[steps, whole])
    assert kind.ignore_merges == whole
    theirs = [PIECES[step] if step in PIECES else pre_tokenizers.Split(Regex(step), "isolated") for step in steps]
    if "(gpt2)" not in steps:
        theirs.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    ours = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in kind.patterns]
    ours.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    for text in TEXTS:
        want = pre_tokenizers.Sequence(theirs).pre_tokenize_str(text)
        assert pre_tokenizers.Sequence(ours).pre_tokenize_str(text) == want


def test_every_fingerprint_is_a_name_that_our_tokenizer_has() -> None:
    assert set(FINGERPRINTS.values()) <= set(PRE_TOKENIZERS)


def test_names() -> None:
    cl100k = next(steps[0] for steps, whole in _KNOWN if _KNOWN[steps, whole] == "llama-bpe")
    assert pre_tokenizer_name(_document(_split(cl100k), ignore_merges=True)) == "llama-bpe"
    removed = _split(cl100k, behavior="Removed", invert=True)
    assert pre_tokenizer_name(_document(removed)) == "dbrx"
    gpt2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    assert pre_tokenizer_name(_document(gpt2)) == "gpt-2"
    digits = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, gpt2]}
    assert pre_tokenizer_name(_document(digits)) == "smollm"
    for other in (_split("x+"), gpt2 | {"add_prefix_space": True}, {"type": "Whitespace"}, _split(cl100k, invert=True)):
        with pytest.raises(TokenizerError, match="none that GGUF has a name for"):
            pre_tokenizer_name(_document(other))
    for broken in ({"type": "Split"}, {"type": "Sequence"}, _split("(")):
        with pytest.raises(TokenizerError, match="cannot be used"):
            pre_tokenizer_name(_document(broken))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "type None"),
        ({"model": []}, "type None"),
        ({"model": {"type": "Unigram", "vocab": []}}, "'Unigram'"),
        ({"model": {"type": "BPE", "merges": []}}, "no vocabulary"),
        ({"model": {"type": "BPE", "vocab": {"a": 9}, "merges": []}}, "has the id 9; each of the 4 rows"),
        ({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}, "has the id -1"),
        ({"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}}, "'b' has the id 0"),
        ({"model": {"type": "BPE", "vocab": {"a": "0"}, "merges": []}}, "has the id 0"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["ab"]}}, "'?ab'? is no merge"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]]}}, "is no merge"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}, "neither over bytes"),
    ],
)
def test_broken_documents(document: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        read_fast_tokenizer(document, n_rows=4)


def test_broken_additions() -> None:
    for entry in (3, {"id": "1", "content": "x"}, {"id": True, "content": "x"}, {"id": 1}):
        with pytest.raises(TokenizerError, match="is no added token"):
            read_added_tokens({"added_tokens": [entry]})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no pieces"),
        (b"\x0a\xff\xff\x03", "longer than the file"),
        (b"\x0b", "wire type 3"),
        (b"\x80" * 20, "more than 64 bits"),
        (b"\x80", "no SentencePiece model"),
        (b"\x0a\x04\x0a\x02\xff\xff", "codec can't decode"),
        (b"\x0a\x02\x08\x01", "a number where bytes are expected"),
        (b"\x0a\x05\x0a\x01a\x18\x09", "a piece of the type 9"),
        (b"\x0a\x08\x0a\x01a\x15\x00\x00\xc0\x7f", "a score that is no number"),
        (b"\x0a\x03\x0a\x01a\x12\x02\x18\x01", "'unigram'; only bpe"),
    ],
)
def test_broken_sentencepiece(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(TokenizerError, match=message):
        read_sentencepiece(tmp_path / "tokenizer.model")
