"""What each token stands for, as bytes."""

from pyggml.tokenizer.rwkv import unescape
from pyggml.tokenizer.vocab import Algorithm, TokenType, Vocabulary

__all__ = ["piece_table"]


def piece_table(vocab: Vocabulary) -> list[bytes]:
    """The bytes of every token, by id.

    Control, unknown and user-defined tokens stand for their own text, unused ones for nothing.
    """
    normal = _decode_normal(vocab)
    table: list[bytes] = []
    for id, (token, kind) in enumerate(zip(vocab.tokens, vocab.types.tolist(), strict=True)):
        if kind == TokenType.NORMAL or vocab.algorithm is Algorithm.RWKV:
            table.append(normal[id])
        elif kind == TokenType.BYTE:
            table.append(_parse_byte(token))
        elif kind in (TokenType.UNUSED, TokenType.UNDEFINED):
            table.append(b"")
        else:
            table.append(_raw(token))
    return table


def _decode_normal(vocab: Vocabulary) -> list[bytes]:
    if vocab.algorithm is Algorithm.RWKV:
        return [unescape(token) for token in vocab.tokens]
    if vocab.algorithm is not Algorithm.BPE or vocab.pre.escape_spaces:
        return [_raw(token.replace("▁", " ")) for token in vocab.tokens]
    if vocab.pre.byte_level:
        return _decode_byte_level(vocab.tokens)
    return [_raw(token) for token in vocab.tokens]


def _decode_byte_level(tokens: list[str]) -> list[bytes]:
    """GPT-2's alphabet back to bytes; a token with any other character stands for itself."""
    # Latin-1 outside the alphabet must not pass for bytes, so it goes where the codec fails.
    table = dict.fromkeys(range(256), 65535) | _byte_alphabet()
    out = []
    for token in tokens:
        try:
            out.append(token.translate(table).encode("latin-1"))
        except UnicodeEncodeError:
            out.append(_raw(token))
    return out


def _byte_alphabet() -> dict[int, int]:
    """Code point to byte: printable Latin-1 stands for itself, the other bytes for U+0100 and up in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: byte for byte in printable} | {0x100 + n: byte for n, byte in enumerate(others)}


def _parse_byte(token: str) -> bytes:
    """``<0xXX>`` to its byte; a byte token of any other form stands for its own text."""
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        try:
            return bytes.fromhex(token[3:5])
        except ValueError:
            pass
    return _raw(token)


def _raw(token: str) -> bytes:
    return token.encode("utf-8", "surrogateescape")
