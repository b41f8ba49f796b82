# ruff: noqa: E501 (the answers of models are long lines)
"""Answers in the forms of the families, as models write them: also those that no template shows."""

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from template_answers import joined, pieces_of, published, read_answer

from pyggml_server.templates import PromptRenderer

pytestmark = pytest.mark.model

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "run",
            "description": "Runs code.",
            "parameters": {
                "type": "object",
                "properties": {
                    "code": {"type": "string", "description": "What."},
                    "n": {"type": "integer", "description": "How often."},
                    "fast": {"type": ["boolean", "null"], "description": "Whether."},
                    "args": {"type": "array", "items": {"type": "string"}, "description": "With."},
                    "env": {"type": "object", "properties": {"deep": {"type": "object"}}, "description": "In.", "additionalProperties": False},
                },
                "required": ["code"],
            },
        },
    },
    {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}}},
]  # fmt: skip
CODE = 'def f(x):\n    return {"a": x < 1}\n\nf("</b>")\n'
_J = '{"code": "print(\\"}\\")", "n": 2}'
_A = {"code": 'print("}")', "n": 2}
_OPEN = "<｜DSML｜"
_NS = "]<]minimax[>["

# template, end of the prompt (None: it does not think), answer, events
CASES: list[tuple[str, str | None, str, list[Any]]] = [
    # JSON between tags: Hermes, Qwen, Granite 4
    ("Qwen-Qwen3-0.6B", "", f'<think>\nhm </think\n</think>\n\n<tool_call>\n{{"name": "run", "arguments": {_J}}}\n</tool_call>', ["hm </think", ("run", _A)]),
    ("Qwen-Qwen3-0.6B", "", "<think>\n\n</think>\n\nYes <tool", ["Yes <tool"]),
    ("Qwen-QwQ-32B", "<think>\n", "Maybe.\n</think>\n\nYes.", ["Maybe.", "Yes."]),
    ("Qwen-Qwen2.5-7B-Instruct", None, f'I run it.\n<tool_call>\n{{"name": "run", "arguments": {_J}}}\n</tool_call>\n<tool_call>\n{{"name": "now", "arguments": {{}}}}\n</tool_call>', ["I run it.", ("run", _A), ("now", {})]),
    ("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", None, f'<tool_call>\n{{"name": "run", "arguments": {_J}}}</tool_call>', [("run", _A)]),
    ("ibm-granite-granite-4.0", None, '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>', [("now", {})]),
    # Granite 3.3
    ("ibm-granite-granite-3.3-2B-Instruct", None, f'<|tool_call|>[{{"name": "run", "arguments": {_J}}}, {{"name": "now"}}]', [("run", _A), ("now", {})]),
    ("ibm-granite-granite-3.3-2B-Instruct", "", "<think>hm</think><response>It is <b>.</response>", ["hm", "It is <b>."]),
    # markup: Qwen3-Coder, with and without the outer tag; Qwen3.5 thinks before
    ("Qwen3-Coder", None, f"Let me.\n<tool_call>\n<function=run>\n<parameter=code>\n{CODE}\n</parameter>\n<parameter=n>\n2\n</parameter>\n<parameter=args>\n[\"a\", \"b\"]\n</parameter>\n</function>\n</tool_call>", ["Let me.", ("run", {"code": CODE, "n": 2, "args": ["a", "b"]})]),
    ("Qwen3-Coder", None, "<function=run>\n<parameter=code>\n12\n</parameter>\n<parameter=fast>\nnull\n</parameter>\n</function>\n</tool_call>\nDone.", [("run", {"code": "12", "fast": None}), "\nDone."]),
    ("Qwen3-Coder", None, "<tool_call>\n<function=now>\n</function>\n<function=run>\n<parameter=code>\n</parameter>\n</function>\n</tool_call>", [("now", {}), ("run", {"code": ""})]),
    ("Qwen3-Coder", None, "Write <function=name> to call.", ["Write <function=name> to call."]),
    ("Qwen3.5-4B", "<think>\n", "hm\n</think>\n\n<tool_call>\n<function=now>\n</function>\n</tool_call>", ["hm", ("now", {})]),
    ("ByteDance-Seed-OSS", "", "<seed:think>hm</seed:think>\n<seed:tool_call>\n<function=run>\n<parameter=code>1</parameter>\n<parameter=n>1</parameter>\n</function>\n</seed:tool_call>", ["hm", ("run", {"code": "1", "n": 1})]),
    ("NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "<think>\n", "hm\n</think>\n<tool_call>\n<function=run>\n<parameter=code>\nx</parameter> y\n</parameter>\n</function>\n</tool_call>\n", ["hm", ("run", {"code": "x</parameter> y"})]),
    ("openbmb-MiniCPM5-1B", "<think>\n", 'hm</think><function name="run"><param name="code"><![CDATA[<a href="/x">hi</a> </param>]]></param></function>\n<function name="now"></function>', ["hm", ("run", {"code": '<a href="/x">hi</a> </param>'}), ("now", {})]),
    ("meetkai-functionary-medium-v3.1", None, f"<function=run>{_J}</function><function=now>{{}}</function>", [("run", _A), ("now", {})]),
    ("MiniMax-M2", "<think>\n", '\n</think>\n\n<minimax:tool_call>\n<invoke name="run">\n<parameter name="code">1</parameter>\n<parameter name="fast">true</parameter>\n</invoke>\n<invoke name="now">\n</invoke>\n</minimax:tool_call>', [("run", {"code": "1", "fast": True}), ("now", {})]),
    ("MiniMax-M3", "", "</mm:think>Hello", ["Hello"]),
    ("MiniMax-M3", "", f'<mm:think>hm</mm:think>{_NS}<tool_call>\n{_NS}<invoke name="run">{_NS}<code>12{_NS}</code>{_NS}<n>3{_NS}</n>{_NS}<args>{_NS}<item>1{_NS}</item>{_NS}</args>{_NS}<env>{_NS}<deep>{_NS}<x>y{_NS}</x>{_NS}</deep>{_NS}</env>{_NS}</invoke>\n{_NS}<invoke name="now">{_NS}</invoke>\n{_NS}</tool_call>', ["hm", ("run", {"code": "12", "n": 3, "args": ["1"], "env": {"deep": {"x": "y"}}}), ("now", {})]),
    ("MiniMax-M1", None, '<tool_calls>\n{"name": "now", "arguments": {}}\n{"name": "run", "arguments": {"code": "1"}}\n</tool_calls>', [("now", {}), ("run", {"code": "1"})]),
    ("deepseek-ai-DeepSeek-V3.2", "<think>", f'hm</think>\n\nI do.\n\n{_OPEN}function_calls>\n{_OPEN}invoke name="run">\n{_OPEN}parameter name="code" string="true">1</｜DSML｜parameter>\n{_OPEN}parameter name="n" string="false">2</｜DSML｜parameter>\n</｜DSML｜invoke>\n{_OPEN}invoke name="now">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>', ["hm", "I do.", ("run", {"code": "1", "n": 2}), ("now", {})]),
    ("deepseek-ai-DeepSeek-V4", "<think>", f'hm</think>\n\n{_OPEN}tool_calls>\n{_OPEN}invoke name="run">\n{_OPEN}parameter name="args" string="false">["a"]</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>', ["hm", ("run", {"args": ["a"]})]),
    # names and arguments side by side: GLM, Ling, Hunyuan
    ("GLM-4.6", "", "\n<think>hm</think>\n<tool_call>run\n<arg_key>code</arg_key>\n<arg_value>contains </think> and <tool_call></arg_value>\n<arg_key>n</arg_key>\n<arg_value>1</arg_value>\n</tool_call>", ["hm", ("run", {"code": "contains </think> and <tool_call>", "n": 1})]),
    ("GLM-4.7-Flash", "<think>", "hm</think><tool_call>now</tool_call>", ["hm", ("now", {})]),
    ("inclusionai-ling-3.0-flash", "<think>", "hm\n</think>\nI look.\n<tool_call>now\n</tool_call>\nSo it is.", ["hm", "I look.", ("now", {}), "\nSo it is."]),
    ("tencent-Hy3", "<think:opensource>", "hm</think:opensource><tool_calls:opensource>\n<tool_call:opensource>run<tool_sep:opensource>\n<arg_key:opensource>code</arg_key:opensource>\n<arg_value:opensource>1</arg_value:opensource>\n</tool_call:opensource>\n<tool_call:opensource>now<tool_sep:opensource>\n</tool_call:opensource>\n</tool_calls:opensource>", ["hm", ("run", {"code": "1"}), ("now", {})]),
    # sections
    ("Kimi-K3", "<|open|>think<|sep|>", 'hm<|close|>think<|sep|><|open|>response<|sep|>Use the response tag.<|close|>response<|sep|><|open|>tools<|sep|><|open|>call tool="run" index="1"<|sep|><|open|>argument key="code" type="string"<|sep|>1<|close|>argument<|sep|><|open|>argument key="n" type="number"<|sep|>1<|close|>argument<|sep|><|close|>call<|sep|><|open|>call tool="now" index="2"<|sep|><|close|>call<|sep|><|close|>tools<|sep|><|close|>message<|sep|>', ["hm", "Use the response tag.", ("run", {"code": "1", "n": 1}), ("now", {})]),
    ("Kimi-K3", "<|open|>think<|sep|>", "still at it", ["still at it"]),
    # special tokens: Kimi K2, DeepSeek, Mistral, Llama, Cohere, LFM2, Gemma, GigaChat, Apertus, Apriel, Nemotron 2, Solar
    ("Kimi-K2-Thinking", "", f"<think>hm</think>Sure.<|tool_calls_section_begin|><|tool_call_begin|>functions.run:0<|tool_call_argument_begin|>{_J}<|tool_call_end|><|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{{}}<|tool_call_end|><|tool_calls_section_end|>", ["hm", "Sure.", ("run", _A), ("now", {})]),
    ("deepseek-ai-DeepSeek-V3.1", "<think>", f"hm</think>Ok.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>run<｜tool▁sep｜>{_J}<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{{}}<｜tool▁call▁end｜><｜tool▁calls▁end｜>", ["hm", "Ok.", ("run", _A), ("now", {})]),
    ("llama-cpp-deepseek-r1", "<think>\n", f"hm</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>run\n```json\n{_J}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>", ["hm", ("run", _A)]),
    ("mistralai-Mistral-Nemo-Instruct-2407", None, f'[TOOL_CALLS][{{"name": "run", "arguments": {_J}, "id": "123456789"}}]', [("run", _A)]),
    ("Mistral-Small-3.2-24B-Instruct-2506", None, f"[TOOL_CALLS]run[CALL_ID]000000001[ARGS]{_J}[TOOL_CALLS]now[CALL_ID]000000002[ARGS]{{}}", [("run", _A), ("now", {})]),
    ("unsloth-mistral-Devstral-Small-2507", None, f"Sure.[TOOL_CALLS]run[ARGS]{_J}", ["Sure.", ("run", _A)]),
    ("mistralai-Ministral-3-14B-Reasoning-2512", "", f"[THINK]Not [TOOL_CALLS]run[ARGS]{{}} yet[/THINK][TOOL_CALLS]run[ARGS]{_J}", ["Not [TOOL_CALLS]run[ARGS]{} yet", ("run", _A)]),
    ("meta-llama-Llama-3.1-8B-Instruct", None, f'{{"name": "run", "parameters": {_J}}}', [("run", _A)]),
    ("meta-llama-Llama-3.1-8B-Instruct", None, f'<|python_tag|>{{"type": "function", "name": "run", "parameters": {_J}}}', [("run", _A)]),
    ("meta-llama-Llama-3.2-3B-Instruct", None, '{"name": "nobody", "parameters": {}}', ['{"name": "nobody", "parameters": {}}']),
    ("CohereForAI-c4ai-command-r7b-12-2024-tool_use", "", f'<|START_THINKING|>hm<|END_THINKING|><|START_ACTION|>[\n    {{"tool_call_id": "0", "tool_name": "run", "parameters": {_J}}}\n]<|END_ACTION|>', ["hm", ("run", _A)]),
    ("CohereForAI-c4ai-command-r7b-12-2024-tool_use", "", "<|START_RESPONSE|>Hello, world!<|END_RESPONSE|>", ["Hello, world!"]),
    ("Cohere2MoE", "<|START_THINKING|>", "<|END_THINKING|><|START_TEXT|>Hello<|END_TEXT|>", ["Hello"]),
    ("CohereForAI-c4ai-command-r-plus-tool_use", None, f'Action:\n```json\n[{{"tool_name": "run", "parameters": {_J}}}]\n```', [("run", _A)]),
    ("LFM2-8B-A1B", None, 'Ok.<|tool_call_start|>[run(code="a\\nb", fast=true, env={"deep": None}, args=["x"]), now()]<|tool_call_end|>', ["Ok.", ("run", {"code": "a\nb", "fast": True, "env": {"deep": None}, "args": ["x"]}), ("now", {})]),
    ("LFM2-8B-A1B", None, "A [link](url).", ["A [link](url)."]),
    ("google-gemma-4-31B-it", "", '<|channel>thought\nhm<channel|>Ok.<|tool_call>call:run{code:<|"|>a{b}: "c"<|"|>,n:-2,fast:true,args:[<|"|>x<|"|>],env:{deep:{}}}<tool_call|><|tool_call>call:now{}<tool_call|>', ["hm", "Ok.", ("run", {"code": 'a{b}: "c"', "n": -2, "fast": True, "args": ["x"], "env": {"deep": {}}}), ("now", {})]),
    ("google-gemma-4-31B-it", "", "<|channel>thought<channel|>Hello", ["Hello"]),
    ("GigaChat3-10B-A1.8B", None, f'Hello<|message_sep|>\n\nfunction call<|role_sep|>\n{{"name": "run", "arguments": {_J}}}', ["Hello", ("run", _A)]),
    ("GigaChat3.1-10B-A1.8B", None, f'Hello<|function_call|>{{"name": "run", "arguments": {_J}}}', ["Hello", ("run", _A)]),
    ("Apertus-8B-Instruct", "", f'<|inner_prefix|>hm<|inner_suffix|><|tools_prefix|>[{{"run": {_J}}}, {{"now": {{}}}}]<|tools_suffix|>', ["hm", ("run", _A), ("now", {})]),
    ("Apriel-1.6-15b-Thinker-fixed", "Here are my reasoning steps:\n", 'hm\n[BEGIN FINAL RESPONSE]\n<tool_calls>[{"name": "now", "arguments": {}}]</tool_calls>', ["hm", ("now", {})]),
    ("NVIDIA-Nemotron-Nano-v2", "<think>\n", f'hm\n</think>\n<TOOLCALL>[{{"name": "run", "arguments": {_J}}}]</TOOLCALL>\n', ["hm", ("run", _A)]),
    ("upstage-Solar-Open-100B", "<|begin|>assistant", f"<|think|>hm<|end|><|begin|>assistant<|tool_calls|><|tool_call:begin|>abc<|tool_call:name|>run<|tool_call:args|>{_J}<|tool_call:end|>", ["hm", ("run", _A)]),
    ("upstage-Solar-Open-100B", "<|begin|>assistant", "<|think|>hm<|end|><|begin|>assistant<|content|>Hello", ["hm", "Hello"]),
    ("fireworks-ai-llama-3-firefunction-v2", None, f' functools[{{"name": "run", "arguments": {_J}}}]', [("run", _A)]),
    # messages with headers: gpt-oss, Glimmer, Functionary 3.2
    ("openai-gpt-oss-120b", "<|start|>assistant", "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to=functions.run <|constrain|>json<|message|>" + _J, ["hm", "I look.", ("run", _A)]),
    ("openai-gpt-oss-120b", "<|start|>assistant", f"<|channel|>analysis to=functions.run <|constrain|>json<|message|>{_J}<|call|>", [("run", _A)]),
    ("openai-gpt-oss-120b", "<|start|>assistant", f" to=functions.run<|channel|>commentary json<|message|>{_J}<|call|>", [("run", _A)]),
    ("openai-gpt-oss-120b", "<|start|>assistant", "<|channel|>final <|constrain|>json<|message|>{}<|return|>", ["{}"]),
    ("muse-glimmer", "<|start|>assistant", ' to=self<|message|>hm<|eom|><|start|>assistant to=user<|message|>Hello<|eom|><|start|>assistant to=run<|message|><atem:function_calls>\n<atem:invoke name="run">\n<atem:parameter name="code">1</atem:parameter>\n<atem:parameter name="n">1</atem:parameter>\n</atem:invoke>\n</atem:function_calls><|eot|>', ["hm", "Hello", ("run", {"code": "1", "n": 1})]),
    ("muse-glimmer", "<|start|>assistant", ' to=user<|message|>Write:\n<atem:invoke name="run">', ['Write:\n<atem:invoke name="run">']),
    ("meetkai-functionary-medium-v3.2", ">>>", f"all\nLet me see.\n>>>run\n{_J}>>>now\n{{}}", ["Let me see.\n", ("run", _A), ("now", {})]),
    ("meetkai-functionary-medium-v3.2", ">>>", "all\n>>> x = 1\n>>>nobody\n", [">>> x = 1\n>>>nobody\n"]),
    ("meetkai-functionary-medium-v3.2", ">>>", "Plain\ntext", ["Plain\ntext"]),
    # no family
    ("google-gemma-2-2b-it", None, f'{{"name": "run", "parameters": {_J}}}', [("run", _A)]),
]  # fmt: skip


@cache
def family(name: str) -> PromptRenderer:
    return published(name)


@pytest.mark.parametrize(("name", "prompt", "text", "expected"), CASES, ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)])  # fmt: skip
def test_answer(name: str, prompt: str | None, text: str, expected: list[Any]) -> None:
    for pieces in pieces_of(text):
        think = prompt is not None
        assert joined(read_answer(family(name), pieces, tools=TOOLS, think=think, prompt=prompt or "")) == expected


@settings(max_examples=250, deadline=None)
@given(case=st.sampled_from(CASES), data=st.data())
def test_pieces_do_not_matter(case: tuple[str, str | None, str, list[Any]], data: st.DataObject) -> None:
    name, prompt, text, expected = case
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    found = joined(read_answer(family(name), pieces, tools=TOOLS, think=prompt is not None, prompt=prompt or ""))
    assert found == expected


@settings(max_examples=250, deadline=None)
@given(case=st.sampled_from(CASES), data=st.data())
def test_what_is_cut_off_makes_no_wrong_call(case: tuple[str, str | None, str, list[Any]], data: st.DataObject) -> None:
    name, prompt, text, expected = case
    end = data.draw(st.integers(0, len(text)))
    arguments: dict[str, Any] = {"tools": TOOLS, "think": prompt is not None, "prompt": prompt or ""}
    whole = joined(read_answer(family(name), [text[:end]], cut=True, **arguments))
    assert joined(read_answer(family(name), list(text[:end]), cut=True, **arguments)) == whole
    calls = [event for event in whole if isinstance(event, tuple)]
    assert all(call in expected or any(_part_of(call, each) for each in expected) for call in calls)


def _part_of(call: tuple[str, dict[str, Any]], whole: Any) -> bool:
    """A call of which the last arguments are missing, where the markup says nothing of them before they come."""
    return isinstance(whole, tuple) and call[0] == whole[0] and call[1].items() <= whole[1].items()
