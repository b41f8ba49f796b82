"""The vocabulary: what GGUF metadata says about tokens, before any algorithm is chosen."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pyggml.errors import TokenizerError
from pyggml.tokenizer.metadata import Metadata
from pyggml.tokenizer.pretokenizers import PreTokenizer, find_pre_tokenizer
from pyggml.tokenizer.special import SpecialTokens, find_special_tokens

__all__ = ["Algorithm", "TokenType", "Vocabulary", "read_vocabulary"]


class TokenType(IntEnum):
    """The values of ``tokenizer.ggml.token_type``."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Algorithm(Enum):
    """How text becomes tokens."""

    BPE = "bpe"
    SPM = "spm"
    WORDPIECE = "wordpiece"
    UNIGRAM = "unigram"
    RWKV = "rwkv"


@dataclass(frozen=True)
class _Model:
    """What ``tokenizer.ggml.model`` implies when the file does not say otherwise."""

    algorithm: Algorithm
    ids: Mapping[str, int]
    add_bos: bool = False
    add_eos: bool = False
    add_sep: bool = False
    add_space_prefix: bool = False


_MODELS: Mapping[str, _Model] = MappingProxyType(
    {
        "llama": _Model(Algorithm.SPM, {"bos": 1, "eos": 2, "unk": 0}, add_bos=True, add_space_prefix=True),
        "bert": _Model(
            Algorithm.WORDPIECE,
            {"bos": 101, "unk": 100, "sep": 102, "pad": 0, "mask": 103},
            add_bos=True,
            add_sep=True,
        ),
        "gpt2": _Model(Algorithm.BPE, {"bos": 11, "eos": 11}),
        "whitespace": _Model(Algorithm.BPE, {"bos": 11, "eos": 11}),
        "gemma4": _Model(Algorithm.BPE, {}),
        "t5": _Model(Algorithm.UNIGRAM, {"eos": 1, "unk": 2, "pad": 0}, add_eos=True),
        "rwkv": _Model(Algorithm.RWKV, {}),
    }
)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Tokens and rules of one tokenizer, checked, in the terms of GGUF."""

    model: str
    """``tokenizer.ggml.model``."""
    algorithm: Algorithm
    tokens: list[str]
    """Text of each id as the file spells it; invalid UTF-8 as surrogate escapes. Treat as read-only."""
    index: dict[str, int]
    """Text to id; the lowest id where a text occurs twice; without ``broken``. Treat as read-only."""
    broken: frozenset[int]
    """Ids whose text is not valid UTF-8: no text contains them, so only models produce them."""
    types: NDArray[np.int8]
    """(n_vocab,) values of :class:`TokenType`, after llama.cpp's corrections."""
    scores: NDArray[np.float32]
    """(n_vocab,) log probabilities or merge priorities; zeros if the file has none."""
    merges: list[str] | None
    """BPE merges, best first, as ``left right``."""
    special: SpecialTokens
    pre: PreTokenizer
    """For BPE; the default kind otherwise."""
    add_bos: bool
    add_eos: bool
    add_sep: bool
    add_space_prefix: bool
    remove_extra_whitespaces: bool
    lowercase: bool
    strip_accents: bool
    charsmap: bytes | None
    """SentencePiece's precompiled normalisation table."""
    strip_right: frozenset[int]
    """Special tokens that swallow the white space after them."""
    strip_left: frozenset[int]
    """Special tokens that swallow the white space before them."""

    def ids_of(self, *types: TokenType) -> list[int]:
        """All ids of the given types, ascending."""
        ids: list[int] = np.flatnonzero(np.isin(self.types, types)).tolist()
        return ids

    def findable_ids(self, *types: TokenType) -> list[int]:
        """Those of ``ids_of`` that a text can contain."""
        return [id for id in self.ids_of(*types) if id not in self.broken] if self.broken else self.ids_of(*types)


def read_vocabulary(values: Mapping[str, object]) -> Vocabulary:
    """Read and check the ``tokenizer.*`` keys of GGUF metadata.

    Raises:
        TokenizerError: a key is missing or has the wrong kind, or the tokenizer model is not supported.
    """
    meta = Metadata(values)
    name = meta.string("tokenizer.ggml.model")
    model = _find_model(name)
    tokens = _read_tokens(meta)
    broken = _find_broken(tokens)
    index = dict(zip(reversed(tokens), range(len(tokens) - 1, -1, -1), strict=True))
    for id in broken:
        index.pop(tokens[id], None)
    types = _read_types(meta, len(tokens))
    pre = _read_pre(meta, name, model.algorithm)
    defaults = _default_ids(model, pre, types)
    special = find_special_tokens(meta, index, n_vocab=len(tokens), defaults=defaults)
    _correct_types(types, special)
    add_bos = meta.boolean("tokenizer.ggml.add_bos_token", default=model.add_bos or pre.add_bos)
    lowercase = meta.boolean("tokenizer.ggml.normalizer.lowercase", default=True)
    strip_left, strip_right = _read_stripping(meta, index, types)
    return Vocabulary(
        model=name,
        algorithm=model.algorithm,
        tokens=tokens,
        index=index,
        broken=broken,
        types=types,
        scores=_read_scores(meta, len(tokens)),
        merges=meta.strings("tokenizer.ggml.merges"),
        special=special,
        pre=pre,
        add_bos=add_bos or pre.force_bos,
        add_eos=meta.boolean("tokenizer.ggml.add_eos_token", default=model.add_eos),
        add_sep=meta.boolean("tokenizer.ggml.add_sep_token", default=model.add_sep or pre.add_sep),
        add_space_prefix=meta.boolean("tokenizer.ggml.add_space_prefix", default=model.add_space_prefix),
        remove_extra_whitespaces=meta.boolean("tokenizer.ggml.remove_extra_whitespaces", default=False),
        lowercase=lowercase,
        strip_accents=meta.boolean("tokenizer.ggml.normalizer.strip_accents", default=lowercase),
        charsmap=meta.blob("tokenizer.ggml.precompiled_charsmap"),
        strip_left=strip_left,
        strip_right=strip_right,
    )


def _find_model(name: str) -> _Model:
    if not name:
        raise TokenizerError("tokenizer.ggml.model is missing: the file holds no vocabulary")
    if name in ("none", "no_vocab"):
        raise TokenizerError(f"tokenizer.ggml.model is {name!r}: the file was made without a vocabulary")
    if name not in _MODELS:
        raise TokenizerError(f"tokenizer.ggml.model is {name!r}, not one of {', '.join(sorted(_MODELS))}")
    return _MODELS[name]


def _read_tokens(meta: Metadata) -> list[str]:
    tokens = meta.strings("tokenizer.ggml.tokens")
    if not tokens:
        raise TokenizerError("tokenizer.ggml.tokens is missing or empty: the file holds no vocabulary")
    if "" in tokens:
        return [token or f"[EMPTY_{id}]" for id, token in enumerate(tokens)]
    return tokens


def _find_broken(tokens: list[str]) -> frozenset[int]:
    try:
        "".join(tokens).encode()
    except UnicodeEncodeError:
        return frozenset(id for id, token in enumerate(tokens) if any("\ud800" <= char <= "\udfff" for char in token))
    return frozenset()


def _read_types(meta: Metadata, n_vocab: int) -> NDArray[np.int8]:
    declared = meta.numbers("tokenizer.ggml.token_type", length=n_vocab)
    if declared is None:
        return np.full(n_vocab, TokenType.NORMAL, dtype=np.int8)
    known = (declared >= TokenType.NORMAL) & (declared <= TokenType.BYTE)
    return np.where(known, declared, TokenType.UNDEFINED).astype(np.int8)


def _read_scores(meta: Metadata, n_vocab: int) -> NDArray[np.float32]:
    scores = meta.numbers("tokenizer.ggml.scores", length=n_vocab)
    if scores is None:
        return np.zeros(n_vocab, dtype=np.float32)
    if not np.isfinite(scores).all():
        raise TokenizerError("tokenizer.ggml.scores holds a value that is not a finite number")
    return scores.astype(np.float32)


def _read_pre(meta: Metadata, name: str, algorithm: Algorithm) -> PreTokenizer:
    if algorithm is not Algorithm.BPE:
        return find_pre_tokenizer("default")
    return find_pre_tokenizer("gemma4" if name == "gemma4" else meta.string("tokenizer.ggml.pre"))


def _default_ids(model: _Model, pre: PreTokenizer, types: NDArray[np.int8]) -> dict[str, int]:
    ids = dict(model.ids)
    if model.algorithm is Algorithm.BPE:
        # llama.cpp's 11 is Falcon's <|endoftext|>; elsewhere it is an ordinary token and no default at all.
        ids = {role: id for role, id in ids.items() if id < len(types) and types[id] == TokenType.CONTROL}
        if not pre.default_bos:
            ids.pop("bos", None)
    return ids


def _correct_types(types: NDArray[np.int8], special: SpecialTokens) -> None:
    for ids, kind in (
        (special.control, TokenType.CONTROL),
        (special.visible, TokenType.USER_DEFINED),
        (special.normal, TokenType.NORMAL),
    ):
        types[list(ids)] = kind


def _read_stripping(
    meta: Metadata, index: Mapping[str, int], types: NDArray[np.int8]
) -> tuple[frozenset[int], frozenset[int]]:
    """Special tokens that swallow white space: (on their left, on their right).

    GGUF cannot express it, so llama.cpp knows the models by name, and so do we.
    """
    name = meta.string("general.name").lower()
    pre = meta.string("tokenizer.ggml.pre")
    architecture = meta.string("general.architecture")
    if pre in ("jina-v2-de", "jina-v2-es", "jina-v2-code") or architecture in (
        "nomic-bert-moe",
        "jina-bert-v3",
    ):
        return frozenset(index[text] for text in ("<mask>",) if text in index), frozenset()
    if "phi-3" in name or "phi3" in name:
        parsed = (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.USER_DEFINED)
        right = {int(id) for id in np.flatnonzero(np.isin(types, parsed))} | {index.get("</s>", -1)}
        return frozenset(), frozenset(right - {index.get(t, -1) for t in ("<unk>", "<s>", "<|endoftext|>")} - {-1})
    if "modern-bert" in name:
        return frozenset(index[text] for text in ("[MASK]",) if text in index), frozenset()
    return frozenset(), frozenset()
