"""What can be asked for, what comes out, and how mistakes are told."""

import json
import random
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pyggml.errors import GrammarError, ParameterError
from pyggml.grammar import Grammar, GrammarCompiler
from pyggml.tokenizer import Tokenizer

from .walks import accepts, byte_tokens, write

SCHEMAS: list[dict[str, Any]] = [
    {"type": "array", "items": {"enum": ["é\n\"", 1, None, {"a": [True]}]}, "minItems": 1, "maxItems": 3},
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 5},
            "kind": {"const": "x"},
            "size": {"type": "number", "minimum": -1.5, "exclusiveMaximum": 20},
            "inner": {"$ref": "#/$defs/node"},
        },
        "required": ["name", "kind"],
        "additionalProperties": {"type": "boolean"},
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                "required": ["next"],
                "additionalProperties": False,
            }
        },
    },
    {"type": "string", "pattern": "^[a-c]+-[0-9]{2}$"},
    {"type": "integer", "multipleOf": 5, "minimum": 3, "maximum": 999},
    {"type": "string", "format": "date"},
    {"type": ["string", "null"], "minLength": 2, "maxLength": 4},
    {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"maxProperties": 2}]},
    {"type": "array", "prefixItems": [{"type": "boolean"}, {"type": "integer"}], "items": False, "minItems": 2},
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS)
def test_random_texts_satisfy_the_schema(
    compiler: GrammarCompiler, tokenizer: Tokenizer, schema: dict[str, Any]
) -> None:
    rng = random.Random(3)
    for n in (0, 3, 10, 30):
        text = write(compiler.compile(Grammar.json_schema(schema)), tokenizer, rng, n=n).decode()
        jsonschema.validate(json.loads(text), schema)


def schemas(depth: int) -> st.SearchStrategy[dict[str, Any]]:
    """Schemas as people write them for answers of models."""
    lengths = st.tuples(st.integers(0, 3), st.integers(3, 6))
    leaves = st.one_of(
        st.sampled_from([{"type": name} for name in ("string", "integer", "number", "boolean", "null")]),
        lengths.map(lambda n: {"type": "string", "minLength": n[0], "maxLength": n[1]}),
        st.tuples(st.integers(-50, 0), st.integers(0, 50)).map(
            lambda n: {"type": "integer", "minimum": n[0], "maximum": n[1]}
        ),
        st.lists(st.one_of(st.text(max_size=3), st.integers(-9, 9), st.none()), min_size=1, max_size=3).map(
            lambda values: {"enum": values}
        ),
    )
    if depth == 0:
        return leaves
    inner = schemas(depth - 1)
    arrays = st.tuples(inner, lengths).map(
        lambda n: {"type": "array", "items": n[0], "minItems": n[1][0], "maxItems": n[1][1]}
    )
    objects = st.tuples(st.dictionaries(st.text(max_size=3), inner, max_size=3), st.booleans()).map(
        lambda n: {"type": "object", "properties": n[0], "required": list(n[0])[n[1] :], "additionalProperties": False}
    )
    return st.one_of(leaves, arrays, objects, st.lists(inner, min_size=1, max_size=2).map(lambda n: {"anyOf": n}))


@given(schema=schemas(2), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=50, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_random_texts_satisfy_random_schemas(
    small: tuple[GrammarCompiler, Tokenizer], schema: dict[str, Any], seed: int
) -> None:
    compiler, tokenizer = small
    text = write(compiler.compile(Grammar.json_schema(schema)), tokenizer, random.Random(seed), n=8).decode()
    jsonschema.validate(json.loads(text), schema)


@pytest.fixture(scope="session")
def small(compiler: GrammarCompiler, tokenizer: Tokenizer) -> tuple[GrammarCompiler, Tokenizer]:
    return compiler, tokenizer


def test_json_is_an_object(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    matcher = compiler.compile(Grammar.json())
    assert accepts(matcher, byte_tokens(tokenizer, '{"a": [1, {"b": null}],\n  "c": "\\n"}'))
    assert not accepts(matcher, byte_tokens(tokenizer, "[1]"))
    assert accepts(compiler.compile(Grammar.json_schema(True)), byte_tokens(tokenizer, "[1]"))
    assert accepts(compiler.compile(Grammar.json_schema("true")), byte_tokens(tokenizer, '"a"'))


@pytest.mark.parametrize("text", ['{"a":  1}', '{"a":\n\n1}', " {}", "{} ", "{}\n", "{\n" + " " * 41 + "}"])
def test_white_space_comes_to_an_end(compiler: GrammarCompiler, tokenizer: Tokenizer, text: str) -> None:
    assert not accepts(compiler.compile(Grammar.json()), byte_tokens(tokenizer, text))


def test_compact_json_leaves_no_choice_about_white_space(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "array"}},
        "required": ["a", "b"],
    }
    matcher = compiler.compile(Grammar.json_schema(schema, compact=True))
    assert tokenizer.decode_bytes(matcher.forced()).startswith(b'{"a":')
    assert accepts(matcher, byte_tokens(tokenizer, '{"a": 1, "b": [1, {"c": 2}]}'))
    for text in ('{"a":1, "b": []}', '{"a": 1,"b": []}', '{ "a": 1, "b": []}', '{"a": 1, "b": [1,2]}'):
        assert not accepts(matcher, byte_tokens(tokenizer, text)), text


def test_properties_come_in_the_order_of_the_schema(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    spec = Grammar.json_schema({"type": "object", "properties": {"b": {"const": 1}, "a": {"const": 2}}})
    matcher = compiler.compile(spec)
    assert accepts(matcher, byte_tokens(tokenizer, '{"b":1,"a":2}'))
    assert not accepts(matcher, byte_tokens(tokenizer, '{"a":2,"b":1}'))


def test_lenient_schemas_say_what_they_ignore(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    schema = {"type": "array", "uniqueItems": True, "items": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}
    with pytest.raises(GrammarError, match=r"uniqueItems|oneOf"):
        compiler.compile(Grammar.json_schema(schema))
    matcher = compiler.compile(Grammar.json_schema(schema, lenient=True))
    assert any("uniqueItems" in warning for warning in matcher.warnings)
    assert accepts(matcher, byte_tokens(tokenizer, "[1, 1.5]"))
    assert compiler.compile(Grammar.json()).warnings == ()


@pytest.mark.parametrize(
    "pattern",
    ["a|bc", "^a[b-d]+$", r"\(\$\)\\\$", "^(x|y){2,3}$", r"[\]\[/-]", "a/b\nc", "(?i)a", "é+|😀", "[^a]b", "^x|y$", ""],
)  # fmt: skip
def test_random_texts_match_the_expression(compiler: GrammarCompiler, tokenizer: Tokenizer, pattern: str) -> None:
    rng = random.Random(5)
    for n in (0, 2, 6):
        text = write(compiler.compile(Grammar.regex(pattern)), tokenizer, rng, n=n).decode()
        assert re.fullmatch(pattern, text)


@given(strings=st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=8), other=st.text(max_size=6))
@settings(deadline=None, max_examples=60)
def test_exactly_the_choices_can_be_written(
    small: tuple[GrammarCompiler, Tokenizer], strings: list[str], other: str
) -> None:
    compiler, tokenizer = small
    matcher = compiler.compile(Grammar.choice(strings))
    for text in (*strings, other, strings[0] + other, strings[0][:-1]):
        assert accepts(matcher, byte_tokens(tokenizer, text)) == (text in strings), text


@pytest.mark.parametrize("strings", [[], "abc", ["a", 1]])
def test_no_choices(strings: Any) -> None:
    with pytest.raises(ParameterError, match="list of one or more strings"):
        Grammar.choice(strings)


def test_specs_are_values() -> None:
    assert Grammar.json() == Grammar.json_schema('{"type": "object"}')
    assert len({Grammar.regex("a"), Grammar.regex("a"), Grammar.lark("a")}) == 2


@pytest.mark.parametrize(
    ("make", "place", "reason"),
    [
        (lambda: Grammar.json_schema('{"a": }'), (1, 7), "is not JSON"),
        (lambda: Grammar.json_schema("[1]"), None, "object or true, got list"),
        (lambda: Grammar.json_schema("false"), None, "object or true, got bool"),
        (lambda: Grammar.json_schema({"const": {1, 2}}), None, "cannot be written as JSON"),
        (lambda: Grammar.json_schema({"const": float("nan")}), None, "cannot be written as JSON"),
        (lambda: Grammar.json_schema("[" * 100_000), None, "nested too deeply"),
        (lambda: Grammar.json_schema({"type": "strin"}), None, "Invalid type: strin"),
        (lambda: Grammar.json_schema({"$ref": "#/nowhere"}), None, "nowhere"),
        (lambda: Grammar.json_schema({"$ref": "https://example.org/x"}), None, "example.org"),
        (lambda: Grammar.json_schema({"$ref": "#"}), None, "no text satisfies"),
        (lambda: Grammar.json_schema({"type": "integer", "minimum": 3, "maximum": 2}), None, "refused"),
        (lambda: Grammar.regex("ab(c"), (1, 3), "unclosed group"),
        (lambda: Grammar.regex("a(?=b)"), (1, 2), "look-around"),
        (lambda: Grammar.regex(r"(a)\1"), (1, 4), "backreferences"),
        (lambda: Grammar.regex("[^\x00-\U0010ffff]"), None, "no text satisfies"),
        (lambda: Grammar.lark('start: "a" foo\n'), (1, 8), "unknown name"),
        (lambda: Grammar.lark('x: "a"'), None, "start"),
    ],
)
def test_mistakes(compiler: GrammarCompiler, make: Any, place: tuple[int, int] | None, reason: str) -> None:
    with pytest.raises(GrammarError, match=re.escape(reason)) as caught:
        compiler.compile(make())
    error = caught.value
    if place is not None:
        assert (error.line, error.column) == place
        assert f"column {place[1]}" in str(error)
    assert "<" not in str(error) and "\n" not in str(error)
