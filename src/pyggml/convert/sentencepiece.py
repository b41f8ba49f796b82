"""``tokenizer.model``: vocabularies of SentencePiece (Kudo and Richardson 2018), read without its library.

The file is a protocol buffer of the message ``ModelProto`` in ``sentencepiece_model.proto``; only the fields that a
GGUF file needs are looked at.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pyggml.convert.vocabulary import TokenKind, Vocabulary
from pyggml.errors import TokenizerError

__all__ = ["read_sentencepiece"]

_MAX_BYTES: Final = 256 << 20
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_TEXT, _SCORE, _KIND = 1, 2, 3
_MODEL_TYPE: Final = 3
_DUMMY_PREFIX: Final = 3
_BPE: Final = 2
_TYPES: Final = ("unigram", "bpe", "word", "char")
Field = int | bytes


def read_sentencepiece(path: Path) -> Vocabulary:
    """The pieces of a BPE model, in the order of their ids.

    Raises:
        TokenizerError: the file is damaged, or holds another kind of model.
        OSError: it cannot be read.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise TokenizerError(f"{path}: is larger than {_MAX_BYTES} bytes")
    try:
        return _read(path.read_bytes())
    except (IndexError, struct.error, UnicodeDecodeError, _DamagedError) as error:
        raise TokenizerError(f"{path}: is no SentencePiece model, or a damaged one ({error})") from None
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from None


class _DamagedError(ValueError):
    """The bytes are no protocol buffer."""


def _read(data: bytes) -> Vocabulary:
    scores = list[float]()
    vocabulary = Vocabulary("llama", "default", [], [], scores=scores)
    kind, prefix = 1, True
    for number, value in _fields(data):
        if number == _PIECES:
            text, score, piece = _piece(_bytes(value))
            vocabulary.tokens.append(text)
            vocabulary.kinds.append(piece)
            scores.append(score)
        elif number == _TRAINER:
            kind = _last_int(_bytes(value), _MODEL_TYPE, default=kind)
        elif number == _NORMALIZER:
            prefix = bool(_last_int(_bytes(value), _DUMMY_PREFIX, default=1))
    if not vocabulary.tokens:
        raise _DamagedError("no pieces")
    if kind != _BPE:
        name = _TYPES[kind - 1] if 1 <= kind <= len(_TYPES) else str(kind)
        raise TokenizerError(f"the model is of the type {name!r}; only bpe can be converted")
    if not prefix:
        vocabulary.add_space_prefix = False
    return vocabulary


def _piece(data: bytes) -> tuple[str, float, TokenKind]:
    text, score, kind = "", 0.0, int(TokenKind.NORMAL)
    for number, value in _fields(data):
        if number == _TEXT:
            text = _bytes(value).decode()
        elif number == _SCORE:
            (score,) = struct.unpack("<f", _bytes(value))
        elif number == _KIND:
            kind = _int(value)
    # SentencePiece's types have the numbers of GGUF's
    if not TokenKind.NORMAL <= kind <= TokenKind.BYTE:
        raise _DamagedError(f"a piece of the type {kind}")
    if not math.isfinite(score):
        raise _DamagedError("a score that is no number")
    # texts of users' tokens are looked for before spaces are replaced
    return text.replace("▁", " ") if kind == TokenKind.USER_DEFINED else text, score, TokenKind(kind)


def _last_int(data: bytes, wanted: int, *, default: int) -> int:
    for number, value in _fields(data):
        if number == wanted:
            default = _int(value)
    return default


def _fields(data: bytes) -> Iterator[tuple[int, Field]]:
    """Number and value of each field: an int of a varint, else bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise _DamagedError(f"a field of the wire type {wire}")
        if size > len(data) - at:
            raise _DamagedError("a field that is longer than the file")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise _DamagedError("a number of more than 64 bits")


def _bytes(value: Field) -> bytes:
    if not isinstance(value, bytes):
        raise _DamagedError("a number where bytes are expected")
    return value


def _int(value: Field) -> int:
    if not isinstance(value, int):
        raise _DamagedError("bytes where a number is expected")
    return value
