# ruff: noqa: E501 (templates are long lines)
"""Go templates in the manner of Ollama's library: what they tell of calls and thoughts is enough to read answers."""

from typing import Any

import pytest
from template_answers import joined, pieces_of, read_answer

from pyggml_server.templates import GoTemplate, Message, PromptRenderer, ToolCall
from pyggml_server.templates.go_writer import GoWriter
from pyggml_server.templates.vocabulary import ModelFacts

TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}
]  # fmt: skip
_CALL = '{"name": "add", "arguments": {"a": 1}}'

TEMPLATES = {
    "hermes": """{{- if .Messages }}{{ if or .System .Tools }}<|im_start|>system
{{ .System }}{{ if .Tools }}
<tools>{{ range .Tools }}
{"type": "function", "function": {{ .Function }}}{{ end }}
</tools>
Write <tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>{{ end }}<|im_end|>
{{ end }}{{ range $i, $_ := .Messages }}{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ if .Thinking }}<think>
{{ .Thinking }}
</think>
{{ end }}{{ .Content }}{{ if .ToolCalls }}<tool_call>
{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
{{ end }}</tool_call>{{ end }}{{ if not $last }}<|im_end|>
{{ end }}{{ else if eq .Role "tool" }}<|im_start|>user
<tool_response>
{{ .Content }}
</tool_response><|im_end|>
{{ end }}{{ if and (ne .Role "assistant") $last }}<|im_start|>assistant
{{ end }}{{ end }}{{ end }}""",
    "mistral": """{{- range $index, $_ := .Messages }}{{- if eq .Role "user" }}{{- if and (eq (len (slice $.Messages $index)) 1) $.Tools }}[AVAILABLE_TOOLS] {{ $.Tools }}[/AVAILABLE_TOOLS]{{ end }}[INST] {{ .Content }}[/INST]
{{- else if eq .Role "assistant" }}{{- if .Content }} {{ .Content }}</s>{{- else if .ToolCalls }}[TOOL_CALLS] [{{- range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}{{- end }}]</s>{{- end }}
{{- else if eq .Role "tool" }}[TOOL_RESULTS] {"content": {{ .Content }}} [/TOOL_RESULTS]{{- end }}{{- end }}""",
    "llama": """{{- range $i, $_ := .Messages }}{{- $last := eq (len (slice $.Messages $i)) 1 }}{{- if eq .Role "user" }}<|start_header_id|>user<|end_header_id|>
{{ if and $.Tools $last }}Respond with {"name": function name, "parameters": dictionary}.
{{ range $.Tools }}{{ . }}
{{ end }}{{ end }}{{ .Content }}<|eot_id|>{{ if $last }}<|start_header_id|>assistant<|end_header_id|>

{{ end }}{{- else if eq .Role "assistant" }}<|start_header_id|>assistant<|end_header_id|>
{{- if .ToolCalls }}
{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "parameters": {{ .Function.Arguments }}}{{ end }}{{- else }}

{{ .Content }}{{- end }}{{ if not $last }}<|eot_id|>{{ end }}{{- else if eq .Role "tool" }}<|start_header_id|>ipython<|end_header_id|>

{{ .Content }}<|eot_id|>{{ end }}{{ end }}""",
    "cohere": """{{- range .Messages }}<|START_OF_TURN_TOKEN|>{{ if eq .Role "assistant" }}<|CHATBOT_TOKEN|>{{ .Content }}{{ if .ToolCalls }}Action: ```json
[{{ range .ToolCalls }}{"tool_name": "{{ .Function.Name }}", "parameters": {{ .Function.Arguments }}}{{ end }}]```{{ end }}{{ else }}<|USER_TOKEN|>{{ .Content }}{{ end }}<|END_OF_TURN_TOKEN|>{{ end }}{{ .Tools }}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>""",
    "deepseek": """{{- range .Messages }}{{ if eq .Role "user" }}<｜User｜>{{ .Content }}{{ else }}<｜Assistant｜>{{ if .ToolCalls }}<｜tool▁calls▁begin｜>{{ range .ToolCalls }}<｜tool▁call▁begin｜>{{ .Function.Name }}<｜tool▁sep｜>{{ .Function.Arguments }}<｜tool▁call▁end｜>{{ end }}<｜tool▁calls▁end｜>{{ else }}{{ .Content }}{{ end }}<｜end▁of▁sentence｜>{{ end }}{{ end }}{{ .Tools }}<｜Assistant｜>""",
    "own": """{{- range .Messages }}{{ .Role }}: {{ .Content }}{{ range .ToolCalls }}<functioncall> {"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}} </functioncall>{{ end }}
{{ end }}{{ .Tools }}assistant: """,
}

CASES = [
    ("hermes", f"Sure. <tool_call>\n{_CALL}\n</tool_call>", ["Sure.", "add"]),
    ("hermes", f"<tool_call>\n{_CALL}\n{_CALL}\n</tool_call>", ["add", "add"]),
    ("mistral", f"[TOOL_CALLS] [{_CALL}]", ["add"]),
    ("mistral", f"[TOOL_CALLS]  [{_CALL}, {_CALL}] ", ["add", "add"]),
    ("llama", '{"name": "add", "parameters": {"a": 1}}', ["add"]),
    ("llama", "2 is {the} answer", ["2 is {the} answer"]),
    ("cohere", 'Action: ```json\n[{"tool_name": "add", "parameters": {"a": 1}}]```', ["add"]),
    ("deepseek", '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{"a":1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>', ["add"]),
    ("own", f"<functioncall> {_CALL} </functioncall>", ["add"]),
    ("own", "<functioncall> nothing", ["<functioncall> nothing"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "expected"), CASES)
def test_answer(name: str, text: str, expected: list[str]) -> None:
    writer = GoWriter(TEMPLATES[name])
    renderer = PromptRenderer(writer, ModelFacts(), go=writer)
    assert "tools" in renderer.capabilities
    for pieces in pieces_of(text):
        found = joined(read_answer(renderer, pieces, tools=TOOLS))
        assert [event if isinstance(event, str) else event[0] for event in found] == expected
        assert all(event == ("add", {"a": 1}) for event in found if not isinstance(event, str))


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_what_a_template_writes_is_read(name: str) -> None:
    writer = GoWriter(TEMPLATES[name])
    renderer = PromptRenderer(writer, ModelFacts(), go=writer)
    user = Message("user", "1?")
    text = renderer.render_chat([user, Message("assistant", tool_calls=[ToolCall("", 0, "add", {"a": 1})])]).text
    assert '{"a":1}' in text
    assert renderer.call_shape is not None
    begin = text[text.index(renderer.call_shape.begin) :]
    end = begin[: begin.index('{"a":1}') + len('{"a":1}')] + renderer.call_shape.end
    assert ("add", {"a": 1}) in joined(read_answer(renderer, [end], tools=TOOLS))


def test_thoughts() -> None:
    writer = GoWriter(TEMPLATES["hermes"])
    renderer = PromptRenderer(writer, ModelFacts(), go=writer)
    assert renderer.think_tags == ("<think>", "</think>")
    for pieces in pieces_of(f"<think>\nhm\n</think>\n\nSo <tool_call>{_CALL}</tool_call>"):
        found = joined(read_answer(renderer, pieces, tools=TOOLS, think=True))
        assert found == ["hm", "So", ("add", {"a": 1})]


def test_what_a_template_uses() -> None:
    source = "{{ .System }}{{ range .Tools }}{{ .Function.Name }}{{ end }}{{ with $x := .Suffix }}{{ $x }}{{ end }}{{ .Response }}"
    assert {"system", "tools", "function", "name", "suffix", "response"} <= GoTemplate(source).tree.names
    assert GoTemplate("{{ if .Nothing }}x{{ end }}").render({}) == ""
