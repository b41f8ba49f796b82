# ruff: noqa: E501 (the answers of models are long lines)
"""Answers to events: tags, partial tags, calls in every family's form, whatever the pieces."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyggml_server.templates import Content, Event, OutputParser, PromptRenderer, Thinking, ToolCall, output_parser

Family = Callable[[str], PromptRenderer]

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            },
        },
    },
    {"type": "function", "function": {"name": "stop"}},
]
_CALL = '{"name": "get_weather", "arguments": {"city": "Bo}rn </tool_call> \\"x\\"", "days": 2}}'
_ARGUMENTS = {"city": 'Bo}rn </tool_call> "x"', "days": 2}


def run(parser: OutputParser, pieces: Sequence[str], *, cut: bool = False) -> list[Any]:
    """Events of an answer, joined; calls as (name, arguments)."""
    events: list[Event] = [event for piece in pieces for event in parser.feed(piece)]
    events += parser.finish(cut=cut)
    found: list[Any] = []
    for event in events:
        if isinstance(event, ToolCall):
            assert event.id.startswith("call_") and len(event.id) == 13
            assert event.index == sum(isinstance(other, tuple) for other in found)
            found.append((event.name, dict(event.arguments)))
        elif found and type(found[-1]) is type(event):
            found[-1] = type(event)(found[-1].text + event.text)
        else:
            found.append(event)
    return found


def parser(renderer: PromptRenderer, *, think: bool | None = None, prompt: str = "") -> OutputParser:
    return output_parser(renderer, tools=TOOLS, think=think, prompt=prompt)


CASES = [
    ("hermes", None, "", "plain < text <tool", [Content("plain < text <tool")]),
    ("hermes", None, "", f"<tool_call>\n{_CALL}\n</tool_call>", [("get_weather", _ARGUMENTS)]),
    (
        "hermes",
        None,
        "",
        f'Let me see.\n<tool_call>{_CALL}</tool_call>\n<tool_call>{{"name": "stop"}}</tool_call>\n',
        [Content("Let me see."), ("get_weather", _ARGUMENTS), ("stop", {})],
    ),
    ("hermes", None, "", "<tool_call>no json</tool_call> x", [Content("<tool_call>no json</tool_call> x")]),
    ("hermes", None, "", 'a \n<tool_call>{"name": 3}</tool_call>', [Content('a \n<tool_call>{"name": 3}</tool_call>')]),
    ("hermes", None, "", f"<tool_call>{_CALL}", [("get_weather", _ARGUMENTS)]),
    ("hermes", None, "", '<tool_call>{"name": "stop", "argu', [Content('<tool_call>{"name": "stop", "argu')]),
    (
        "hermes",
        None,
        "",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\n1\n</parameter>\n<parameter=days>\n1\n</parameter>\n"
        "</function>\n</tool_call>",
        [("get_weather", {"city": "1", "days": 1})],
    ),
    (
        "hermes",
        None,
        "",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>7</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>7</arg_value>\n</tool_call>",
        [("get_weather", {"city": "7", "days": 7})],
    ),
    ("hermes", True, "", "  <think>\n a\nb \n</think>\n\n c ", [Thinking("a\nb"), Content("c ")]),
    ("hermes", True, "", "<think>open", [Thinking("open")]),
    ("hermes", True, "", "<thin", [Content("<thin")]),
    ("hermes", True, "", " no </think> here", [Content(" no </think> here")]),
    ("hermes", True, "q<think>\n", "a </thin b</think>c", [Thinking("a </thin b"), Content("c")]),
    ("hermes", True, "q<think>\n", f"a</think><tool_call>{_CALL}</tool_call>", [Thinking("a"), ("get_weather", _ARGUMENTS)]),
    ("hermes", False, "", "<think>a</think>", [Content("<think>a</think>")]),
    ("mistral", None, "", f"[TOOL_CALLS][{_CALL}, {_CALL}]", [("get_weather", _ARGUMENTS)] * 2),
    ("mistral", None, "", '[TOOL_CALLS]stop[CALL_ID]abcdefghi[ARGS]{}[TOOL_CALLS]stop{"a": 1}', [("stop", {}), ("stop", {"a": 1})]),
    ("mistral", None, "", "an [array] [TOOL", [Content("an [array] [TOOL")]),
    ("llama", None, "", '{"name": "stop", "parameters": {}}', [("stop", {})]),
    ("llama", None, "", '<|python_tag|>{"name": "stop"}; {"name": "stop", "parameters": {"b": [1]}}', [("stop", {}), ("stop", {"b": [1]})]),
    ("llama", None, "", ' {"name": "nobody", "parameters": {}} x', [Content(' {"name": "nobody", "parameters": {}} x')]),
    ("llama", None, "", 'x {"name": "stop"}', [Content('x {"name": "stop"}')]),
    ("deepseek", None, "", '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>stop<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>', [("stop", {"a": 1})]),
    (
        "deepseek",
        None,
        "",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Rom"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        [("get_weather", {"city": "Rom"})],
    ),
    (
        "harmony",
        True,
        "<|start|>assistant",
        "<|channel|>analysis<|message|>hm <b<|end|><|start|>assistant<|channel|>final<|message|>yes",
        [Thinking("hm <b"), Content("yes")],
    ),
    (
        "harmony",
        True,
        "<|start|>assistant",
        '<|channel|>commentary to=functions.stop <|constrain|>json<|message|>{"a": 1}<|call|>',
        [("stop", {"a": 1})],
    ),
    ("harmony", True, "", "goes on", [Content("goes on")]),
    ("plain", None, "", '{"name": "stop", "arguments": "{\\"a\\": 1}"}', [("stop", {"a": 1})]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "think", "prompt", "text", "expected"), CASES)
def test_events(family: Family, name: str, think: bool | None, prompt: str, text: str, expected: list[Any]) -> None:
    renderer = family(name)
    assert run(parser(renderer, think=think, prompt=prompt), [text]) == expected
    assert run(parser(renderer, think=think, prompt=prompt), list(text)) == expected


CUT = [
    ("hermes", 'Let me see. <tool_call>{"name": "stop", "argu', [Content("Let me see.")]),
    ("hermes", "Yes. <tool_c", [Content("Yes.")]),
    ("hermes", "a < b", [Content("a < b")]),
    ("hermes", "1 <", [Content("1 <")]),
    ("hermes", '<tool_call>{"name": "stop", "arguments": {}}', [("stop", {})]),
    ("hermes", "<tool_call>\n<function=get_weather>\n<parameter=city>\nRo", []),
    ("hermes", "<tool_call>stop", []),
    ("mistral", '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": {}', []),
    ("llama", '{"name": "get_weather", "para', []),
    ("llama", '{"title": "get_w', [Content('{"title": "get_w')]),
    ("deepseek", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>stop", []),
    ("harmony", '<|channel|>commentary to=functions.stop <|constrain|>json<|message|>{"a": {"b": 1}', []),
    ("harmony", '<|channel|>commentary to=functions.stop<|message|>{"a": 1}', [("stop", {"a": 1})]),
    ("harmony", "<|channel|>final<|message|>ye", [Content("ye")]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "expected"), CUT)
def test_a_call_that_a_limit_cuts_off_is_withheld(family: Family, name: str, text: str, expected: list[Any]) -> None:
    for pieces in ([text], list(text)):
        assert run(parser(family(name), prompt="<|start|>assistant"), pieces, cut=True) == expected


_FRAGMENTS = st.sampled_from(
    ["<think>", "</think>", "<tool_call>", "</tool_call>", _CALL, "[TOOL_CALLS]", "[", "]", "{", "}", " ", "\n", "a", '"', "\\"]
    + ["<|python_tag|>", ";", "<", "<|channel|>analysis", "<|channel|>final", "<|message|>", "<|end|>", "<|start|>assistant"]
    + ["<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "stop", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", '{"name": "stop"}', "to=functions.stop"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(["hermes", "mistral", "llama", "deepseek", "harmony", "plain"]),
    think=st.booleans(),
    inside=st.booleans(),
    text=st.lists(_FRAGMENTS, max_size=12).map("".join),
    data=st.data(),
)
def test_pieces_do_not_matter(
    family: Family, name: str, think: bool, inside: bool, text: str, data: st.DataObject
) -> None:
    renderer, prompt = family(name), "<think>" if inside else "<|start|>assistant"
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = run(parser(renderer, think=think, prompt=prompt), [text])
    assert run(parser(renderer, think=think, prompt=prompt), pieces) == whole
    assert run(parser(renderer, think=think, prompt=prompt), list(text)) == whole


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet='a<>[]{}" \n/tolcTOL_|', max_size=40))
def test_text_without_calls_stays_as_it_is(family: Family, text: str) -> None:
    for name in ("hermes", "mistral", "llama", "plain"):
        events = run(parser(family(name)), list(text))
        assert "".join(event.text for event in events) == text


def test_without_tools_nothing_is_a_call(family: Family) -> None:
    text = f"<tool_call>{_CALL}</tool_call>"
    assert run(output_parser(family("hermes")), list(text)) == [Content(text)]


def test_content_is_not_held_back(family: Family) -> None:
    answer = parser(family("hermes"))
    assert answer.feed("Hello") == [Content("Hello")]
    assert answer.feed(" world <") == [Content(" world")]
    assert answer.feed("b>") == [Content(" <b>")]


def test_long_arguments_take_linear_time(family: Family) -> None:
    arguments = {"city": "x{}" * 100_000}
    text = "<tool_call>" + json.dumps({"name": "get_weather", "arguments": arguments}) + "</tool_call>"
    pieces = [text[i : i + 64] for i in range(0, len(text), 64)]
    assert run(parser(family("hermes")), pieces) == [("get_weather", arguments)]
