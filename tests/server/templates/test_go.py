# ruff: noqa: E501 (templates are long lines)
"""Go templates: Ollama's values and functions, the older form, and limits for what strangers wrote."""

import time
from datetime import datetime
from typing import Any

import pytest

from pyggml.errors import TemplateError
from pyggml_server.templates import Message, ToolCall
from pyggml_server.templates.go_template import GoTemplate
from pyggml_server.templates.go_writer import GoWriter

_PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Where <to>"},
        "units": {"type": ["string", "null"], "enum": ["C", "F"]},
        "days": {"type": "array", "items": {"type": "integer"}},
    },
    "required": ["city"],
}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Tells.", "parameters": _PARAMETERS}}
TALK = [
    Message("system", "S"),
    Message("user", "a"),
    Message("assistant", "b", thinking="t"),
    Message("user", "c"),
    Message("user", "d"),
]


def write(source: str, messages: list[Message], *, tools: list[dict[str, Any]] | None = None, think: Any = None) -> str:
    writer = GoWriter(source, clock=lambda: datetime(2024, 3, 1, 12))
    return writer.write(messages, tools=tools or [], think=think, add_generation_prompt=True)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ range .Messages }}{{ .Role }}={{ .Content }};{{ end }}", "system=S;user=a;assistant=b;user=c\n\nd;"),
        ("{{ .System }}{{ range .Messages }}{{ end }}", "S"),
        ("{{ range .Messages }}{{ if .Thinking }}<t>{{ .Thinking }}</t>{{ end }}{{ end }}", "<t>t</t>"),
        ("{{- range $i, $_ := .Messages }}{{ if eq (len (slice $.Messages $i)) 1 }}{{ $i }}{{ end }}{{ end }}", "3"),
        ("{{ (index .Messages 1).Content }}", "a"),
        ("{{ .Messages | len }}{{ .Nothing }}", "4<no value>"),
        ("{{ if .Nothing }}x{{ else if not .Tools }}y{{ end }}{{ range .Messages }}{{ break }}{{ end }}", "y"),
        ('{{ with .System }}{{ . }}{{ end }}{{ .Messages | len | printf "%03d" }}', "S004"),
        ('{{ define "x" }}[{{ . }}]{{ end }}{{ template "x" .System }}{{ len .Messages }}', "[S]4"),
        ("{{ currentDate }} {{ yesterdayDate }}{{ range .Messages }}{{ end }}", "2024-03-01 2024-02-29"),
        ("{{- /* note */ -}} x {{- range .Messages }}{{ continue }}{{ end }}", "x"),
    ],
)
def test_messages(source: str, expected: str) -> None:
    assert write(source, TALK) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ range .Tools }}{{ .Function.Name }}: {{ .Function.Description }}{{ end }}", "weather: Tells."),
        ("{{ range .Tools }}{{ .Type }}{{ .Function.Parameters.Type }}{{ end }}", "functionobject"),
        ("{{ range .Tools }}{{ .Function.Parameters.Required }}{{ end }}", "[city]"),
        (
            "{{ range .Tools }}{{ range $k, $v := .Function.Parameters.Properties }}{{ $k }}:{{ $v.Type }} {{ end }}{{ end }}",
            'city:string units:["string","null"] days:array ',
        ),
        (
            "{{ range .Tools }}{{ range $k, $v := .Function.Parameters.Properties }}{{ $k }}?: {{ toTypeScriptType $v }}, {{ end }}"
            "{{ end }}",
            "city?: string, units?: string | null, days?: number[], ",
        ),
        ("{{ len .Tools }}{{ if .Tools }}!{{ end }}", "1!"),
        ("{{ range $i, $t := .Tools }}{{ $i }}{{ $t.Function.Name }}{{ end }}", "0weather"),
    ],
)  # fmt: skip
def test_tools(source: str, expected: str) -> None:
    assert write(source + "{{ range .Messages }}{{ end }}", TALK, tools=[TOOL]) == expected


def test_tools_and_arguments_print_as_json() -> None:
    text = (
        '{"type":"function","function":{"name":"weather","description":"Tells.","parameters":{"type":"object","properties":'
        '{"city":{"type":"string","description":"Where <to>"},"units":{"type":["string","null"],"enum":["C","F"]},"days":'
        '{"type":"array","items":{"type":"integer"}}},"required":["city"]}}}'
    )
    source = (
        "{{ .Tools }}|{{ json .Tools }}|{{ range .Tools }}{{ . }}|{{ json . }}{{ end }}{{ range .Messages }}{{ end }}"
    )
    assert write(source, TALK, tools=[TOOL]) == f"[{text}]|[{text}]|{text}|{text}"
    call = ToolCall("id1", 0, "weather", {"z": "ö", "a": [1, {"b": None}]})
    source = (
        "{{ range .Messages }}{{ range .ToolCalls }}{{ .ID }} {{ .Function.Index }} {{ .Function.Name }} {{ .Function.Arguments }}"
        "{{ range $k, $v := .Function.Arguments }} {{ $k }}={{ $v }}{{ end }}{{ end }}{{ .ToolName }}{{ .ToolCallID }}{{ end }}"
    )
    messages = [Message("assistant", tool_calls=[call]), Message("tool", "r", tool_name="n", tool_call_id="i")]
    assert write(source, messages) == 'id1 0 weather {"z":"ö","a":[1,{"b":null}]} z=ö a=[1 map[b:<nil>]]ni'


def test_thinking_is_told() -> None:
    source = "{{ .Think }} {{ .ThinkLevel }} {{ .IsThinkSet }}{{ range .Messages }}{{ end }}"
    assert [write(source, TALK, think=think) for think in (None, False, "low")] == [
        "false  false", "false  true", "true low true"
    ]  # fmt: skip


_OLD = "{{ if .System }}<s>{{ .System }}{{ end }}{{ if .Prompt }}<u>{{ .Prompt }}{{ end }}<a>{{ .Response }}</a>\n"


def test_older_form_is_written_round_by_round() -> None:
    assert write(_OLD, TALK) == "<s>S<u>a<a>b</a>\n<u>c\n\nd<a>"
    assert write(_OLD, TALK[:3]) == "<s>S<u>a<a>b"
    assert (
        write(_OLD, [Message("user", "a"), Message("system", "S"), Message("user", "c")]) == "<u>a<a></a>\n<s>S<u>c<a>"
    )
    assert write(_OLD, []) == "<a>"


def test_answer_inside_blocks_is_where_the_prompt_ends() -> None:
    source = "{{ if .Prompt }}é{{ .Prompt }}{{ if true }}<a>{{ .Response -}}  x{{ end }}y{{ end }}z{{ if .System }}w{{ end }}"
    assert write(source, [Message("user", "q")]) == "éq<a>"


def test_answer_is_appended_where_the_template_has_no_place_for_it() -> None:
    assert write("{{ .System }}:{{ .Prompt }} ", TALK) == "S:a b:c\n\nd "


def test_fill_in_the_middle() -> None:
    source = "{{ if .Suffix }}<p>{{ .Prompt }}<x>{{ .Suffix }}<m>{{ else }}{{ .Prompt }}{{ end }}"
    assert GoWriter(source).fill("a", "b") == "<p>a<x>b<m>"
    assert "suffix" in GoWriter(source).names


def test_tags_of_thoughts_are_those_around_them() -> None:
    source = (
        "{{ range .Messages }}{{ if .Thinking }}<think>\n{{ .Thinking }}\n</think>\n{{ end }}{{ .Content }}{{ end }}"
    )
    assert GoWriter(source).think_tags == ("<think>", "</think>")
    assert GoWriter("{{ range .Messages }}{{ .Content }}{{ end }}").think_tags is None


def test_long_conversations_are_within_the_limits() -> None:
    source = (
        "{{ range $i, $m := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}{{ if eq .Role `user` }}{{ .Content }}"
        "{{ else }}{{ range .ToolCalls }}{{ .Function.Arguments }}{{ end }}{{ end }}{{ if $last }}!{{ end }}{{ end }}"
    )
    calls = [ToolCall("x", 0, "f", {"a": 1})] * 3
    turn = [Message("user", "u"), Message("assistant", tool_calls=calls), Message("tool", "r")]
    assert write(source, turn * 200) == 'u{"a":1}{"a":1}{"a":1}' * 200 + "!"


@pytest.mark.parametrize(
    "source",
    [
        "{{ range 1000000000 }}{{ end }}",
        "{{ range 5000 }}{{ range 5000 }}{{ end }}{{ end }}",
        "{{ range 1000000 }}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{{ end }}",
        '{{ $x := "a" }}{{ range 1000 }}{{ $x = print $x $x }}{{ end }}',
        '{{ $x := "a" }}{{ range 1000 }}{{ $x = printf "%s%s" $x $x }}{{ end }}',
        '{{ $x := "<" }}{{ range 100 }}{{ $x = html $x }}{{ $x = js $x }}{{ $x = printf "%q" $x }}{{ end }}',
        '{{ printf "%99999999d" 1 }}',
        '{{ printf "%*d" 99999999 1 }}',
        '{{ define "a" }}{{ template "a" }}{{ end }}{{ template "a" }}',
        '{{ define "a" }}{{ template "b" }}{{ end }}{{ define "b" }}{{ template "a" }}{{ end }}{{ template "a" }}',
        "".join(f'{{{{ define "a{i}" }}}}{{{{ template "a{i + 1}" }}}}{{{{ template "a{i + 1}" }}}}{{{{ end }}}}' for i in range(40))
        + '{{ template "a0" }}',
        "{{ if 1 }}" * 500 + "{{ end }}" * 500,
        "{{ System }}",
        "{{ .System.upper }}",
        "{{ .System.__class__ }}",
        "{{ .Messages.append 1 }}",
        "{{ call .System }}",
        "{{ index .Messages 7 }}",
        "{{ slice .System 5 }}",
        "{{",
        "{{ end }}",
        "x" * 300_000,
    ],
)  # fmt: skip
def test_hostile_templates_are_stopped(source: str) -> None:
    started = time.process_time()
    with pytest.raises(TemplateError, match="Go template"):
        GoTemplate(source).render({"System": "s", "Messages": []})
    assert time.process_time() - started < 5
