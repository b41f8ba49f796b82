"""Byte pair encoding with merges given by the file: GPT-2's byte alphabet, or raw UTF-8 with byte tokens.

Method: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units"; byte level:
Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
"""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers.models import BPE

from pyggml.errors import TokenizerError
from pyggml.tokenizer.cache import load_or_merge
from pyggml.tokenizer.encoders import LibraryEncoder
from pyggml.tokenizer.merges import name_pairs
from pyggml.tokenizer.vocab import Vocabulary

__all__ = ["build_bpe"]


def build_bpe(vocab: Vocabulary, *, cache_dir: Path | None) -> LibraryEncoder:
    """An encoder for ``tokenizer.ggml.model`` = gpt2, gemma4 or whitespace.

    Raises:
        TokenizerError: the file has no merges.
    """
    if vocab.merges is not None:
        merges = _split_merges(vocab.merges)
    elif vocab.pre.ranked:
        merges = name_pairs(vocab, load_or_merge(vocab, ranks=True, cache_dir=cache_dir))
    else:
        raise TokenizerError("tokenizer.ggml.merges is missing: a BPE vocabulary cannot be used without it")
    pre = vocab.pre
    byte_fallback = not pre.byte_level
    try:
        model = BPE(vocab.index, merges, byte_fallback=byte_fallback, ignore_merges=pre.ignore_merges)
    except Exception:  # the library raises nothing narrower
        # A merge of texts that are not tokens can never apply; the library rejects it, llama.cpp ignores it.
        merges = _usable(vocab, merges)
        model = BPE(vocab.index, merges, byte_fallback=byte_fallback, ignore_merges=pre.ignore_merges)
    return LibraryEncoder(vocab, model, normalizer=_normalizer(vocab), pre_tokenizer=_pre_tokenizer(vocab))


def _normalizer(vocab: Vocabulary) -> normalizers.Normalizer | None:
    if vocab.pre.escape_spaces:
        return normalizers.Replace(" ", "▁")
    if vocab.model == "whitespace" and vocab.lowercase:
        return normalizers.Lowercase()
    return None


def _pre_tokenizer(vocab: Vocabulary) -> pre_tokenizers.PreTokenizer:
    if vocab.model == "whitespace":
        return pre_tokenizers.WhitespaceSplit()
    steps: list[pre_tokenizers.PreTokenizer] = [
        pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in vocab.pre.patterns
    ]
    if vocab.pre.byte_level:
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    return pre_tokenizers.Sequence(steps)


def _split_merges(lines: Iterable[str]) -> list[tuple[str, str]]:
    """``left right`` to pairs; the first character belongs to the left part even if it is a space."""
    pairs = []
    for line in lines:
        space = line.find(" ", 1)
        if space > 0:
            pairs.append((line[:space], line[space + 1 :]))
    return pairs


def _usable(vocab: Vocabulary, merges: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    known = vocab.index
    return [(a, b) for a, b in merges if a in known and b in known and a + b in known]
