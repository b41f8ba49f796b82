"""Texts written at random under a grammar, and a small vocabulary for it."""

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pyggml.grammar import Matcher
from pyggml.grammar.matcher import Mask
from pyggml.tokenizer import Tokenizer
from tokenizer.synthetic import CONTROL, NORMAL, USER, byte_alphabet, make

MERGES = ["t r", "u e", "tr ue", '" :', '{ "', '" ,', "1 2", "a b", "ab c", 'Ġ "', "} }", "Ã ©", "a }", "] }", "- 1"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_pad|>"]
CLOSING = frozenset([b'"', b"}", b"]", b")", b";", b"\n"])


def small_tokenizer() -> Tokenizer:
    """256 bytes, a few merges across what JSON puts together, four control tokens and one that is text."""
    tokens = [(text, CONTROL, 0.0) for text in SPECIAL] + [("<tool>", USER, 0.0)]
    tokens += [(text, NORMAL, 0.0) for text in byte_alphabet()]
    tokens += [(merge.replace(" ", ""), NORMAL, 0.0) for merge in MERGES]
    return Tokenizer.from_metadata(make("gpt2", tokens, pre="gpt-2", merges=MERGES, eos_token_id=0))


def allowed_ids(mask: Mask) -> npt.NDArray[np.int64]:
    """The tokens of a mask, ascending."""
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))


def allowed(mask: Mask) -> list[int]:
    """The same as a list."""
    found: list[int] = allowed_ids(mask).tolist()
    return found


def byte_tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    """One token per byte."""
    table = {tokenizer.token_bytes(id): id for id in range(tokenizer.n_vocab) if not tokenizer.is_control(id)}
    return [table[bytes([byte])] for byte in text.encode()]


def accepts(matcher: Matcher, tokens: Sequence[int]) -> bool:
    """Whether ``tokens`` are a whole text of the grammar; the matcher stays where it was."""
    n = matcher.try_accept(tokens)
    whole = n == len(tokens) and matcher.is_accepting
    matcher.rollback(n)
    return whole


def write(matcher: Matcher, tokenizer: Tokenizer, rng: random.Random, *, n: int = 40) -> bytes:
    """Follow the masks at random, with an eye to the end after ``n`` tokens; fails if there is none."""
    out: list[int] = []
    for _ in range(600 + n):
        tokens = allowed_ids(matcher.mask())
        is_end = np.isin(tokens, list(tokenizer.eog_ids))
        ends, tokens = tokens[is_end].tolist(), tokens[~is_end]
        assert bool(ends) == matcher.is_accepting
        assert not (matcher.is_stopped and tokens.size)
        if ends and (not tokens.size or len(out) >= n or rng.random() < 0.2):
            matcher.accept(rng.choice(ends))
            return tokenizer.decode_bytes(out)
        token = _short(tokens, tokenizer, rng) if len(out) >= n else int(tokens[rng.randrange(tokens.size)])
        matcher.accept(token)
        out.append(token)
    raise AssertionError(f"no end after {len(out)} tokens: {tokenizer.decode_bytes(out)[:200]!r}")


def _short(tokens: npt.NDArray[np.int64], tokenizer: Tokenizer, rng: random.Random) -> int:
    """What closes strings, lists and objects; else something short."""
    some = tokens.tolist() if tokens.size < 1000 else tokens[:1000].tolist()
    closing = [token for token in some if tokenizer.token_bytes(token) in CLOSING]
    chosen: int = rng.choice(closing or sorted(some, key=lambda token: len(tokenizer.token_bytes(token)))[:20])
    return chosen
