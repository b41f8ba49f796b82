# ruff: noqa: E501 (the answers of models are long lines)
"""Grammars that force calls: what they allow is what the parser of the family reads."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyggml.gguf import GGUFFile
from pyggml.grammar import Grammar, GrammarCompiler, GrammarKind, Matcher
from pyggml.tokenizer import Tokenizer
from pyggml_server.errors import BadRequestError
from pyggml_server.protocol import GrammarText
from pyggml_server.templates import PromptRenderer, ToolCall, output_parser, tool_choice_grammar
from pyggml_server.templates.go_writer import GoWriter
from pyggml_server.templates.jinja import JinjaWriter
from pyggml_server.templates.vocabulary import ModelFacts

Family = Callable[[str], PromptRenderer]

_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": _SCHEMA}},
    {"type": "function", "function": {"name": "stop"}},
]
_ARGUMENTS = {"city": 'Köln "}<', "days": 3}
_JSON = json.dumps(_ARGUMENTS, ensure_ascii=False)


class Vocabulary:
    """A tokenizer with its compiler of grammars."""

    def __init__(self, path: Path) -> None:
        with GGUFFile(path) as file:
            self.tokenizer = Tokenizer.from_metadata(file.metadata)
        self.compiler = GrammarCompiler(self.tokenizer)

    def compile(self, grammar: GrammarText) -> Matcher:
        return self.compiler.compile(Grammar(GrammarKind(grammar.kind), grammar.text, lenient=grammar.lenient))

    def allows(self, grammar: GrammarText, text: str, *, special: bool = False) -> bool:
        matcher = self.compile(grammar)
        tokens = self.tokenizer.encode(text, add_special=False, parse_special=special)
        return matcher.try_accept(tokens) == len(tokens) and matcher.is_accepting


@pytest.fixture(scope="module")
def vocabulary(smollm2_path: Path) -> Iterator[Vocabulary]:
    """SmolLM2's."""
    found = Vocabulary(smollm2_path)
    yield found
    found.compiler.close()


def calls(renderer: PromptRenderer, text: str) -> list[tuple[str, dict[str, Any]]]:
    parser = output_parser(renderer, tools=TOOLS, prompt="<|start|>assistant")
    events = [event for piece in text for event in parser.feed(piece)] + parser.finish()
    assert all(isinstance(event, ToolCall) for event in events), events
    return [(event.name, dict(event.arguments)) for event in events if isinstance(event, ToolCall)]


ONE = {
    "hermes": f'<tool_call>\n{{"name": "get_weather", "arguments": {_JSON}}}\n</tool_call>',
    "mistral": f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {_JSON}, "id": "Ab3456789"}}]',
    "llama": f'{{"name": "get_weather", "parameters": {_JSON}}}',
    "deepseek": f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{_JSON}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "harmony": f"<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{_JSON}",
    "plain": f'{{"name": "get_weather", "arguments": {_JSON}}}',
}  # fmt: skip


@pytest.mark.parametrize("name", ONE)
def test_forced_calls_are_read_back(family: Family, vocabulary: Vocabulary, name: str) -> None:
    renderer = family(name)
    for parallel in (False, True):
        for choice in ("required", {"name": "get_weather"}):
            assert vocabulary.allows(tool_choice_grammar(renderer, TOOLS, choice, parallel=parallel), ONE[name])
    assert calls(renderer, ONE[name]) == [("get_weather", _ARGUMENTS)]


@pytest.mark.parametrize("name", ["hermes", "mistral", "deepseek"])
def test_parallel_calls(family: Family, vocabulary: Vocabulary, name: str) -> None:
    renderer = family(name)
    two = {
        "hermes": ONE["hermes"] + '\n<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>',
        "mistral": ONE["mistral"][:-1] + ', {"name": "stop", "arguments": {}, "id": "123456789"}]',
        "deepseek": ONE["deepseek"].replace("<｜tool▁calls▁end｜>", "")
        + "<｜tool▁call▁begin｜>stop<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    }[name]
    assert vocabulary.allows(tool_choice_grammar(renderer, TOOLS, "required", parallel=True), two)
    assert not vocabulary.allows(tool_choice_grammar(renderer, TOOLS, "required", parallel=False), two)
    assert calls(renderer, two) == [("get_weather", _ARGUMENTS), ("stop", {})]


@pytest.mark.parametrize(
    "text",
    [
        "Hello",
        "",
        '<tool_call>\n{"name": "nobody", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "a"}}\n</tool_call>',
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": 1, "days": 1}}\n</tool_call>',
        '<tool_call>\n{"name": "stop", "arguments": []}\n</tool_call>',
        ONE["hermes"][:-1],
    ],
)
def test_nothing_else_is_allowed(family: Family, vocabulary: Vocabulary, text: str) -> None:
    assert not vocabulary.allows(tool_choice_grammar(family("hermes"), TOOLS, "required", parallel=True), text)


def test_a_named_tool_excludes_the_others(family: Family, vocabulary: Vocabulary) -> None:
    grammar = tool_choice_grammar(family("hermes"), TOOLS, {"name": "stop"}, parallel=True)
    assert vocabulary.allows(grammar, '<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>')
    assert not vocabulary.allows(grammar, ONE["hermes"])
    with pytest.raises(BadRequestError, match="nobody"):
        tool_choice_grammar(family("hermes"), TOOLS, {"name": "nobody"}, parallel=True)


def test_control_tokens_are_tokens(vocabulary: Vocabulary) -> None:
    """<|im_start|> is one token for SmolLM2, which no text can stand for."""
    source = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls %}<|im_start|>"
        '{{ {"name": c.function.name, "arguments": c.function.arguments} | tojson }}{% endfor %}{% endfor %}'
    )
    facts = ModelFacts(controls={"<|im_start|>": vocabulary.tokenizer.encode("<|im_start|>", add_special=False)[0]})
    renderer = PromptRenderer(JinjaWriter(source, bos="", eos=""), facts)
    assert renderer.sees_special
    grammar = tool_choice_grammar(renderer, TOOLS, "required", parallel=True)
    text = '<|im_start|>{"name": "stop", "arguments": {}}'
    assert vocabulary.allows(grammar, text, special=True)
    assert not vocabulary.allows(grammar, text, special=False)
    assert calls(renderer, text) == [("stop", {})]
    # a runner that leaves control tokens out
    assert calls(renderer, text.removeprefix("<|im_start|>")) == [("stop", {})]


def test_go_templates_show_their_calls(vocabulary: Vocabulary) -> None:
    source = (
        "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}{{ range .ToolCalls }}<call>"
        '{"name":"{{ .Function.Name }}","parameters":{{ .Function.Arguments }}}</call>{{ end }}<|im_end|>\n{{ end }}'
    )
    renderer = PromptRenderer(GoWriter(source), ModelFacts())
    grammar = tool_choice_grammar(renderer, TOOLS, "required", parallel=True)
    call = '<call>{"name":"get_weather","parameters":{"city":"Rom","days":1}}</call>'
    assert vocabulary.allows(grammar, call * 2)
    assert calls(renderer, call * 2) == [("get_weather", {"city": "Rom", "days": 1})] * 2


def test_remarks_take_no_room(family: Family, vocabulary: Vocabulary) -> None:
    text = {"type": "string", "description": "long " * 10_000, "enum": ["title", "description"]}
    schema = {
        "properties": {"description": text, "at": {"$ref": "#/$defs/p"}},
        "$defs": {"p": {"type": "integer", "title": "P"}},
    }
    tool = {"function": {"name": "f", "parameters": {**schema, "required": ["description", "at"]}}}
    grammar = tool_choice_grammar(family("plain"), [tool], "required", parallel=False)
    assert vocabulary.allows(grammar, '{"name": "f", "arguments": {"description": "title", "at": 3}}')
    assert not vocabulary.allows(grammar, '{"name": "f", "arguments": {"description": "long", "at": 3}}')
    assert not vocabulary.allows(grammar, '{"name": "f", "arguments": {"description": "title", "at": "x"}}')


def test_schemas_of_any_kind_compile(family: Family, vocabulary: Vocabulary) -> None:
    odd = {"name": 'a"b\\', "parameters": {"type": "object", "properties": {"x": {"not": {}}}, "uniqueItems": True}}
    grammar = tool_choice_grammar(family("hermes"), [{"function": odd}], "required", parallel=False)
    vocabulary.compile(grammar)


def test_arguments_are_those_that_the_schema_lists(family: Family) -> None:
    open_map = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": True}
    parameters = {"type": "object", "properties": {"a": {"type": "string"}, "b": open_map}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    text = tool_choice_grammar(family("hermes"), tools, "required", parallel=False).text
    schema = json.loads(text[text.index("%json ") + 6 :].splitlines()[0])
    assert schema["additionalProperties"] is False
    assert schema["properties"]["b"]["additionalProperties"] is True
