"""Byte-level BPE with 49,152 tokens, SentencePiece with 262,144: what the masks let through is what was asked for."""

import json
import random
import re
from typing import Any

import jsonschema
import numpy as np
import pytest

from pyggml.grammar import Grammar, GrammarCompiler
from pyggml.tokenizer import Tokenizer

from .walks import accepts, allowed, write

pytestmark = pytest.mark.model

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 30},
        "tags": {"type": "array", "items": {"enum": ["naïve", "日本語", "plain", "with space"]}, "maxItems": 4},
        "score": {"type": "number", "minimum": 0, "maximum": 10},
        "count": {"type": "integer"},
    },
    "required": ["title", "tags", "count"],
    "additionalProperties": False,
}
DOCUMENT = '{"title": "A naïve test ✓", "tags": ["日本語", "with space"], "score": 2.50, "count": -17}'

Pair = tuple[GrammarCompiler, Tokenizer]


@pytest.fixture(params=["smollm2", "gemma3"])
def pair(request: pytest.FixtureRequest) -> Pair:
    compiler: GrammarCompiler = request.getfixturevalue(f"{request.param}_compiler")
    tokenizer: Tokenizer = request.getfixturevalue(request.param)
    return compiler, tokenizer


def test_random_texts_satisfy_the_schema(pair: Pair) -> None:
    compiler, tokenizer = pair
    rng = random.Random(11)
    for n in (0, 12):
        text = write(compiler.compile(Grammar.json_schema(SCHEMA)), tokenizer, rng, n=n).decode()
        jsonschema.validate(json.loads(text), SCHEMA)


def test_random_texts_are_json(pair: Pair) -> None:
    compiler, tokenizer = pair
    rng = random.Random(12)
    for n in (0, 25):
        assert isinstance(json.loads(write(compiler.compile(Grammar.json()), tokenizer, rng, n=n)), dict)


def test_random_texts_match_the_expression(pair: Pair) -> None:
    compiler, tokenizer = pair
    pattern = r"(the |an? )?[a-zé]{3,12}(, [a-z ]+)* \d{4}[.!✓]"
    text = write(compiler.compile(Grammar.regex(pattern)), tokenizer, random.Random(13), n=5).decode()
    assert re.fullmatch(pattern, text)


def test_what_the_tokenizer_writes_is_accepted(pair: Pair) -> None:
    """Token for token, so that the masks forbid no usual spelling."""
    compiler, tokenizer = pair
    for indent in (None, 2):
        text = json.dumps(json.loads(DOCUMENT), ensure_ascii=False, indent=indent)
        ids = tokenizer.encode(text, add_special=False)
        matcher = compiler.compile(Grammar.json())
        for n, token in enumerate(ids):
            assert token in allowed(matcher.mask()), tokenizer.decode_bytes(ids[: n + 1])
            matcher.accept(token)
        assert matcher.is_stopped


def test_forced_tokens_are_the_tokenizer_s(pair: Pair) -> None:
    compiler, tokenizer = pair
    text = "The answer to everything is forty-two, isn't it?"
    matcher = compiler.compile(Grammar.choice([text]))
    forced = matcher.forced()
    assert forced == tokenizer.encode(text, add_special=False)[: len(forced)]
    assert len(forced) > 8
    assert matcher.try_accept(forced) == len(forced)


def test_control_tokens_never_come(pair: Pair) -> None:
    compiler, tokenizer = pair
    matcher = compiler.compile(Grammar.regex("(?s:.)*"))
    tokens = set(allowed(matcher.mask()))
    control = {id for id in range(tokenizer.n_vocab) if tokenizer.is_control(id)}
    assert tokens & control <= tokenizer.eog_ids
    assert tokenizer.eos_id in tokens
    assert len(tokens) > 0.9 * (tokenizer.n_vocab - len(control))
    assert max(tokens) < tokenizer.n_vocab


def test_gbnf_reads_like_the_schema(pair: Pair) -> None:
    compiler, tokenizer = pair
    gbnf = r"""
    root ::= "{" ws "\"n\":" ws number "," ws "\"list\":" ws list "}"
    list ::= "[" ws ( item ("," ws item)* )? "]"
    item ::= number | list | "\"" [^"\\\x00-\x1f]* "\""
    number ::= "-"? ("0" | [1-9] [0-9]*)
    ws ::= " "?
    """.replace("\n    ", "\n")
    matcher = compiler.compile(Grammar.gbnf(gbnf))
    assert accepts(matcher, tokenizer.encode('{"n": 12, "list": [1, ["é b", []]]}', add_special=False))
    value = json.loads(write(matcher, tokenizer, random.Random(14), n=15))
    assert set(value) == {"n", "list"}


def test_bytes_of_a_character_in_several_tokens(pair: Pair) -> None:
    compiler, tokenizer = pair
    matcher = compiler.compile(Grammar.choice(["𓀀𓀁"]))  # no vocabulary has hieroglyphs
    text = write(matcher, tokenizer, random.Random(1), n=50).decode()
    assert text == "𓀀𓀁"
    assert matcher.n_tokens > 3


def test_padding_of_the_logits_is_never_allowed(gemma3_compiler: GrammarCompiler, gemma3: Tokenizer) -> None:
    mask = gemma3_compiler.compile(Grammar.regex("(?s:.)*")).mask()
    assert mask.shape == (-(-(gemma3.n_vocab + 65) // 32),)
    assert not np.unpackbits(mask.view(np.uint8), bitorder="little")[gemma3.n_vocab :].any()
