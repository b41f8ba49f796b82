"""A vocabulary on its way into a GGUF file."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from pyggml.errors import TokenizerError
from pyggml.gguf import GGUFWriter, ValueType

__all__ = ["AddedToken", "TokenKind", "Vocabulary", "add_tokens", "fit_rows", "write_vocabulary"]

# texts that are control tokens although some models do not mark them so
_CONTROL: Final = frozenset({"<pad>", "<mask>", "<2mass>", "[@BOS@]"})
_BRACKETS: Final = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))


class TokenKind(IntEnum):
    """The values of ``tokenizer.ggml.token_type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that was put into the vocabulary by hand."""

    id: int
    text: str
    special: bool


@dataclass(slots=True)
class Vocabulary:
    """Tokens by id, and how text becomes tokens.

    Attributes:
        model: ``tokenizer.ggml.model``: ``llama`` (pieces with scores) or ``gpt2`` (merges over bytes).
        pre: ``tokenizer.ggml.pre``.
        tokens: Texts by id.
        kinds: Their kinds.
        scores: For ``llama``, their scores.
        merges: For ``gpt2``, ``left right``, best first.
        add_space_prefix: Whether a space is put before each text; None: it is not said.
    """

    model: str
    pre: str
    tokens: list[str]
    kinds: list[TokenKind]
    scores: list[float] | None = None
    merges: list[str] | None = None
    add_space_prefix: bool | None = None


def add_tokens(vocabulary: Vocabulary, added: list[AddedToken], *, n_rows: int, score: float = -1000.0) -> None:
    """Put tokens in their places; those beyond the rows of the embedding, which no model can produce, are left out."""
    for token in added:
        if not 0 <= token.id < n_rows:
            continue
        _pad(vocabulary, token.id + 1)
        control = token.special or _looks_special(token.text)
        vocabulary.kinds[token.id] = TokenKind.CONTROL if control else TokenKind.USER_DEFINED
        # texts of users' tokens are looked for before spaces are replaced
        vocabulary.tokens[token.id] = token.text if control else token.text.replace("▁", " ")
        if vocabulary.scores is not None:
            vocabulary.scores[token.id] = score


def fit_rows(vocabulary: Vocabulary, *, n_rows: int) -> None:
    """Give the vocabulary one token for each row of the embedding: ``[PAD7]`` for a row that has none.

    Raises:
        TokenizerError: it has tokens without a row that are more than additions.
    """
    if len(vocabulary.tokens) > n_rows:
        raise TokenizerError(f"the vocabulary has {len(vocabulary.tokens)} tokens, the embedding {n_rows} rows")
    _pad(vocabulary, n_rows)


def write_vocabulary(vocabulary: Vocabulary, writer: GGUFWriter) -> None:
    """Add the ``tokenizer.ggml.*`` keys of the vocabulary itself."""
    writer.add("tokenizer.ggml.model", vocabulary.model)
    writer.add("tokenizer.ggml.pre", vocabulary.pre)
    writer.add("tokenizer.ggml.tokens", vocabulary.tokens, item=ValueType.STRING)
    if vocabulary.scores is not None:
        writer.add("tokenizer.ggml.scores", vocabulary.scores, item=ValueType.FLOAT32)
    writer.add("tokenizer.ggml.token_type", [int(kind) for kind in vocabulary.kinds], item=ValueType.INT32)
    if vocabulary.merges is not None:
        writer.add("tokenizer.ggml.merges", vocabulary.merges, item=ValueType.STRING)
    if vocabulary.add_space_prefix is not None:
        writer.add("tokenizer.ggml.add_space_prefix", vocabulary.add_space_prefix)


def _looks_special(text: str) -> bool:
    return text in _CONTROL or any(text.startswith(a) and text.endswith(b) for a, b in _BRACKETS)


def _pad(vocabulary: Vocabulary, n: int) -> None:
    missing = range(len(vocabulary.tokens), n)
    vocabulary.tokens += [f"[PAD{i}]" for i in missing]
    vocabulary.kinds += [TokenKind.UNUSED] * len(missing)
    if vocabulary.scores is not None:
        vocabulary.scores += [-10000.0] * len(missing)
