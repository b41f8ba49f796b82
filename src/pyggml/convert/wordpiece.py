"""WordPiece vocabularies in GGUF's form: word starts marked with "▁", continuations bare (llama.cpp's
convention).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyggml.convert.checkpoint import Checkpoint
from pyggml.errors import ModelError, TokenizerError

__all__ = ["WordPiece", "read_wordpiece"]

# token types of GGUF
NORMAL: Final = 1
CONTROL: Final = 3
UNUSED: Final = 5
_SPECIALS: Final = {
    "unknown": "unk_token",
    "seperator": "sep_token",  # spelled so in the GGUF key
    "padding": "pad_token",
    "cls": "cls_token",
    "mask": "mask_token",
}


@dataclass(frozen=True, slots=True)
class WordPiece:
    """A vocabulary ready to be written.

    Attributes:
        tokens: Texts by id.
        types: GGUF token types by id (1 normal, 3 control, 5 unused).
        special_ids: GGUF's names (``cls``, ``seperator``, ``padding``, ``unknown``, ``mask``) → id.
    """

    tokens: list[str]
    types: list[int]
    special_ids: Mapping[str, int]


def read_wordpiece(checkpoint: Checkpoint, *, n_vocab: int) -> WordPiece:
    """The vocabulary of a BERT model, from ``tokenizer.json`` or ``vocab.txt``.

    Args:
        checkpoint: The model folder.
        n_vocab: Rows of the embedding; the vocabulary is padded to that length.

    Raises:
        TokenizerError: no vocabulary, or one that does not fit.
    """
    config = checkpoint.json("tokenizer_config.json") if checkpoint.has("tokenizer_config.json") else {}
    if config.get("do_lower_case", True) is not True:
        raise TokenizerError(f"{checkpoint.folder}: cased WordPiece vocabularies cannot be converted")
    ids = _from_json(checkpoint) if checkpoint.has("tokenizer.json") else _from_text(checkpoint.folder)
    if not ids or sorted(ids.values()) != list(range(len(ids))) or len(ids) > n_vocab:
        raise TokenizerError(
            f"{checkpoint.folder}: the {len(ids)} tokens do not have the ids 0 to {len(ids) - 1}, "
            f"or are more than the {n_vocab} rows of the embedding"
        )
    special_ids = {}
    for key, field in _SPECIALS.items():
        token = config.get(field, f"[{field[:3].upper() if field != 'mask_token' else 'MASK'}]")
        text = token.get("content") if isinstance(token, dict) else token
        if text not in ids:
            raise TokenizerError(f"{checkpoint.folder}: the {field} {text!r} is not in the vocabulary")
        special_ids[key] = ids[text]
    tokens = [_mark(text) for text in sorted(ids, key=ids.__getitem__)]
    types = [NORMAL] * len(tokens)
    for index in special_ids.values():
        types[index] = CONTROL
    padding = range(len(tokens), n_vocab)
    return WordPiece(tokens + [f"[PAD{i}]" for i in padding], types + [UNUSED] * len(padding), special_ids)


def _mark(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        return text
    return text[2:] if text.startswith("##") else "▁" + text


def _from_json(checkpoint: Checkpoint) -> dict[str, int]:
    document = checkpoint.json("tokenizer.json")
    model = document.get("model")
    if not isinstance(model, dict) or model.get("type", "WordPiece") != "WordPiece":
        raise TokenizerError(f"{checkpoint.folder / 'tokenizer.json'}: is no WordPiece tokenizer")
    vocab = model.get("vocab")
    if not isinstance(vocab, dict) or not all(type(i) is int for i in vocab.values()):
        raise TokenizerError(f"{checkpoint.folder / 'tokenizer.json'}: has no vocabulary")
    normalizer = document.get("normalizer") or {}
    if normalizer.get("lowercase", True) is not True:
        raise TokenizerError(f"{checkpoint.folder}: cased WordPiece vocabularies cannot be converted")
    return vocab


def _from_text(folder: Path) -> dict[str, int]:
    path = folder / "vocab.txt"
    try:
        lines = path.read_text("utf-8").split("\n")
    except FileNotFoundError as error:
        raise ModelError(f"{folder}: has neither tokenizer.json nor vocab.txt") from error
    if lines and not lines[-1]:
        lines.pop()
    return {line.rstrip("\r"): index for index, line in enumerate(lines)}
