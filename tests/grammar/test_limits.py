"""Grammars of strangers: what would take minutes, gigabytes or the process is refused, the rest stays small."""

import json
import random
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from pyggml.errors import GrammarError
from pyggml.grammar import Grammar, GrammarCompiler
from pyggml.grammar.shortest import shortest_text
from pyggml.tokenizer import Tokenizer

from .walks import allowed_ids

SECONDS = 20.0  # generous: the machine may be busy; what is refused takes milliseconds, the rest took minutes


def rules(line: str, n: int) -> str:
    """``line`` for each number and the next."""
    return "".join(line.format(i, i + 1) for i in range(n))


def refs(n: int) -> dict[str, Any]:
    defs: dict[str, Any] = {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(n)}
    return {"$ref": "#/$defs/a0", "$defs": {**defs, f"a{n}": {"type": "string"}}}


REFUSED: list[tuple[Callable[[], Grammar], str]] = [
    # Thousands of rules in a row would overflow the stack of llguidance and end the process.
    (lambda: Grammar.lark("start: r0\n" + rules("r{0}: r{1}\n", 2000) + 'r2000: "a"\n'), "rules in the Lark grammar"),
    (lambda: Grammar.lark("start: r0\n" + rules("r{0}: r{1}\n", 100_000)), "characters in the Lark grammar"),
    (lambda: Grammar.json_schema(refs(3000)), "different references"),
    # Counted repetition of what must come is looked ahead over at every token.
    (lambda: Grammar.regex("a{1000000}"), "1000000 characters in the shortest text"),
    (lambda: Grammar.regex("[xy](a{1000}|b{2000}){1000}"), "1000001 characters in the shortest text"),
    (lambda: Grammar.lark("start: /(a{1000}){1000}/"), "characters in the shortest text"),
    (lambda: Grammar.json_schema({"pattern": "^(a{1000}){1000}$"}), "characters in the shortest text"),
    (lambda: Grammar.json_schema({"const": "x" * 30_000}), "characters in one const"),
    (lambda: Grammar.json_schema({"enum": [1, ["x" * 30_000]]}), "characters in one enum"),
    (lambda: Grammar.choice(["x" * 30_000]), "characters in one choice"),
    (lambda: Grammar.gbnf("root ::= r0\n" + rules("r{0} ::= r{1} r{1}\n", 30) + 'r30 ::= "a"'), "demands more than"),
    # One state per remainder.
    (lambda: Grammar.json_schema({"type": "integer", "multipleOf": 99_999_989}), "sum of multipleOf"),
    (lambda: Grammar.json_schema({"type": "number", "multipleOf": 1e300}), "sum of multipleOf"),
    (lambda: Grammar.json_schema({"anyOf": [{"multipleOf": 9_999.1 + i} for i in range(9)]}), "sum of multipleOf"),
    (lambda: Grammar.lark('start: "a" %json {"type": "integer", "multipleOf": 999983}'), "sum of multipleOf"),
    # Quadratic in the compiler.
    (lambda: Grammar.json_schema({"properties": {f"p{i}": {} for i in range(5000)}}), "properties in one object"),
    (lambda: Grammar.regex("a?" * 50_000), "characters in a regular expression"),
    (lambda: Grammar.lark("start: /" + "a?" * 8_000 + "/"), "characters in a regular expression"),
    (lambda: Grammar.json_schema({"patternProperties": {f"^{i}" * 90: {} for i in range(100)}}), "in the patterns"),
    (lambda: Grammar.json_schema({"description": "x" * 300_000}), "characters in the JSON schema"),
    (lambda: Grammar.choice([str(i) for i in range(10_001)]), "choices"),
    (lambda: Grammar.json_schema('{"items":' * 400 + "{}" + "}" * 400), "recursion limit"),
    # llguidance's own limits.
    (lambda: Grammar.lark("start: T0\n" + rules("T{0}: T{1} T{1}\n", 30) + 'T30: "a"\n'), "too big"),
    (lambda: Grammar.lark("start: " + "(" * 5000 + '"a"' + ")" * 5000), "too deeply nested"),
    (lambda: Grammar.regex("(" * 2000 + "a" + ")" * 2000), "nest"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "reason"), REFUSED)
def test_refused(compiler: GrammarCompiler, make: Callable[[], Grammar], reason: str) -> None:
    began = time.perf_counter()
    with pytest.raises(GrammarError, match=re.escape(reason)) as caught:
        compiler.compile(make())
    assert time.perf_counter() - began < SECONDS
    assert len(str(caught.value)) < 600


ALLOWED: list[Callable[[], Grammar]] = [
    lambda: Grammar.lark("start: r0\n" + rules("r{0}: r{1}\n", 450) + 'r450: "a"\n'),
    lambda: Grammar.lark("start: T0\n" + rules('T{0}: T{1} "b" | "c"\n', 450) + 'T450: "a"\n'),
    lambda: Grammar.json_schema(refs(450)),
    lambda: Grammar.json_schema({"type": "array", "minItems": 10**9, "items": {"type": "boolean"}}),
    lambda: Grammar.json_schema({"type": "string", "minLength": 10**9}),
    lambda: Grammar.json_schema({"properties": {f"p{i}": {"type": "string"} for i in range(900)}}),
    lambda: Grammar.json_schema({"enum": [f"value {i}" for i in range(5000)]}),
    lambda: Grammar.choice([f"v{i}" for i in range(10_000)]),
    lambda: Grammar.regex("(a?){500}" * 3),
    lambda: Grammar.regex("(.*a.{14}b|.*b.{15}c)"),
    lambda: Grammar.gbnf('root ::= "a" | root root | root root root'),
    lambda: Grammar.gbnf('root ::= "(" root ")" | "a" | ' + " | ".join(f'"k{i}" root' for i in range(1500))),
    lambda: Grammar.gbnf("root ::= r0\n" + rules('r{0} ::= "x" | r{1} "b"\n', 450) + 'r450 ::= root "a"'),
    lambda: Grammar.gbnf('root ::= ("(" root ")" | "a"{0,1000} "b"){0,1000}'),
    lambda: Grammar.lark("start: r0\n" + rules("r{0}: r{1} r{1}\n", 30) + 'r30: "a"\n'),
]  # fmt: skip


@pytest.mark.parametrize("make", ALLOWED)
def test_allowed_and_bounded(compiler: GrammarCompiler, make: Callable[[], Grammar]) -> None:
    """It may turn out to be too much on the way, with an error; but no step takes long."""
    rng = random.Random(2)
    began = time.perf_counter()
    matcher = compiler.compile(make())
    assert time.perf_counter() - began < SECONDS
    for _ in range(10):
        began = time.perf_counter()
        try:
            tokens = allowed_ids(matcher.mask())
            matcher.accept(int(tokens[rng.randrange(tokens.size)]))
        except GrammarError as error:
            assert "Too many items" in str(error)
            break
        if matcher.is_stopped:
            break
        assert time.perf_counter() - began < SECONDS / 4


def test_broken_json_in_lark_is_llguidance_s_to_explain(compiler: GrammarCompiler) -> None:
    for text in ('start: %json {"type": }', "start: %json " + '{"items": ' * 3000):
        with pytest.raises(GrammarError, match=r"json|JSON"):
            compiler.compile(Grammar.lark(text))


def test_keys_named_like_keywords_are_no_keywords(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    schema = {"type": "object", "properties": {"$ref": {"type": "string"}, "multipleOf": {"const": 10**12}, "enum": {}}}
    compiler.compile(Grammar.json_schema(json.dumps(schema)))


@pytest.mark.parametrize(
    ("pattern", "n"),
    [
        ("", 0),
        ("abc", 3),
        ("ab|c", 1),
        ("a(bc|d)e", 3),
        ("a{3}b{2,}c{0,9}", 5),
        ("(ab){4}", 8),
        ("((a{10}){10}){10}", 1000),
        ("(?:a|bcd){2,3}", 2),
        ("(?P<x>ab)(?i)c(?s:d)", 4),
        (r"\x{1F600}\p{Greek}\d\n\.", 5),
        (r"[a-z]{5}[^\]]{2}[]x]{3}[[:alpha:]]{4}", 14),
        ("a*b+c?d", 2),
        ("a*?b+?", 1),
        ("^a$", 1),
        ("a{x", 3),
        ("(a", 1),
        ("a)b", 1),
        ("é😀", 2),
    ],
)
def test_shortest_text(pattern: str, n: int) -> None:
    assert shortest_text(pattern) == n
