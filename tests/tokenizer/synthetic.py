"""Small vocabularies, as GGUF metadata, for tests that need no file."""

from pyggml.tokenizer import TokenType

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = (
    int(kind)
    for kind in (
        TokenType.NORMAL,
        TokenType.UNKNOWN,
        TokenType.CONTROL,
        TokenType.USER_DEFINED,
        TokenType.UNUSED,
        TokenType.BYTE,
    )
)

Meta = dict[str, object]


def byte_alphabet() -> list[str]:
    """GPT-2's character for each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def make(model: str, tokens: list[tuple[str, int, float]], **keys: object) -> Meta:
    """Metadata of a vocabulary of (text, type, score)."""
    meta: Meta = {
        "tokenizer.ggml.model": model,
        "tokenizer.ggml.tokens": [text for text, _, _ in tokens],
        "tokenizer.ggml.token_type": [kind for _, kind, _ in tokens],
        "tokenizer.ggml.scores": [score for _, _, score in tokens],
    }
    return meta | {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


def bpe(**keys: object) -> Meta:
    """256 bytes, the merges of "hello" and " world", four special tokens from id 0."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld"]
    tokens = [(text, CONTROL, 0.0) for text in special] + [("<think>", USER, 0.0)]
    tokens += [(text, NORMAL, 0.0) for text in byte_alphabet()]
    tokens += [(merge.replace(" ", ""), NORMAL, 0.0) for merge in merges]
    return make("gpt2", tokens, **({"pre": "gpt-2", "merges": merges, "eos_token_id": 0} | keys))


def spm(**keys: object) -> Meta:
    """SentencePiece BPE: unknown, BOS, EOS, 256 bytes, a few pieces, one control token at the end."""
    tokens = [("<unk>", UNKNOWN, 0.0), ("<s>", CONTROL, 0.0), ("</s>", CONTROL, 0.0)]
    tokens += [(f"<0x{byte:02X}>", BYTE, 0.0) for byte in range(256)]
    pieces = ["▁h", "el", "lo", "▁hel", "▁hello", "▁w", "or", "ld", "▁wor", "▁world", "▁▁"]
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz<>/"]
    tokens += [(piece, NORMAL, -float(n)) for n, piece in enumerate(pieces + letters)]
    tokens += [("<|user|>", CONTROL, 0.0), ("<b>", USER, 0.0)]
    return make("llama", tokens, **({"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0} | keys))


def wordpiece(**keys: object) -> Meta:
    """BERT's kind: [PAD] [UNK] [CLS] [SEP] [MASK], then words and their continuations."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = ["▁hello", "▁wor", "ld", "▁un", "aff", "able", "▁!", "▁世", "▁a", "a"]
    ids = {"bos_token_id": 2, "unknown_token_id": 1, "seperator_token_id": 3, "padding_token_id": 0, "mask_token_id": 4}
    tokens = [(text, CONTROL, 0.0) for text in special] + [(word, NORMAL, 0.0) for word in words]
    return make("bert", tokens, **(ids | keys))


def unigram(**keys: object) -> Meta:
    """T5's kind: <pad> </s> <unk>, pieces with log probabilities."""
    tokens = [("<pad>", CONTROL, 0.0), ("</s>", CONTROL, 0.0), ("<unk>", UNKNOWN, 0.0)]
    pieces = {
        "▁": -3.0,
        "▁hello": -4.0,
        "▁hel": -5.0,
        "lo": -5.0,
        "▁world": -4.0,
        "s": -6.0,
        "<": -7.0,
        "/": -7.0,
        ">": -7.0,
    }
    tokens += [(piece, NORMAL, score) for piece, score in pieces.items()]
    ids = {"eos_token_id": 1, "unknown_token_id": 2, "padding_token_id": 0, "add_space_prefix": True}
    return make("t5", tokens, **(ids | keys))


def rwkv(**keys: object) -> Meta:
    """RWKV's kind: a control token, 256 bytes, some longer tokens, spelled with escapes."""
    tokens = [("<s>", CONTROL, 0.0)]
    tokens += [(_escape(byte), NORMAL, 0.0) for byte in range(256)]
    tokens += [(text, NORMAL, 0.0) for text in ["he", "hello", "\\n\\n", "hello wor", "é", "\\xe4\\xb8"]]
    return make("rwkv", tokens, **keys)


def _escape(byte: int) -> str:
    if byte == 0x5C:
        return "\\\\"
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}"
