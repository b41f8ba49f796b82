"""The published templates that llama.cpp collects: whole conversations are written, and what a template writes as an
answer is read back as it was, however it is cut into pieces.
"""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from template_answers import joined, pieces_of, published, read_answer, templates_folder

from pyggml_server.templates import Message, PromptRenderer, ToolCall
from pyggml_server.templates.forcing import forced_shape
from pyggml_server.templates.probing import PROBE_ID

pytestmark = pytest.mark.model

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Tells the weather.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Where."},
                    "days": {"type": "integer", "description": "How many."},
                },
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "get_time",
            "description": "Tells the time.",
            "parameters": {
                "type": "object",
                "properties": {"zone": {"type": "string", "description": "Where."}},
                "required": ["zone"],
            },
        },
    },
]
WEATHER = {"city": 'São <b> {x} "q"', "days": 2}
TIME = {"zone": "UTC"}
CALLS = [ToolCall("abcdef123", 0, "get_weather", WEATHER), ToolCall("abcdef124", 1, "get_time", TIME)]
THOUGHT = "hm, let me see"

# Ends of a turn: tokens that end generation, which runners leave out.
_ENDS = (
    "</s>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|call|>", "<|calls|>", "<|return|>", "<eos>",
    "<|end_of_text|>", "<|END_OF_TURN_TOKEN|>", "<｜end▁of▁sentence｜>", "<seed:eos>", "<|message_sep|>",
    "<end_of_sentence>", "[e~[", "<SPECIAL_12>", "<|end_of_msg|>", "<｜hy_eos:opensource｜>", "<|tool_response>",
    "<turn|>", "</assistant>", "<|eot|>", "<|assistant_end|>", "<|endoftext|>", "<sep>", "<end_of_turn>",
    "<|role_end|>",
)  # fmt: skip
# Templates that write no call as an answer: they take calls of the history from its text, or end the turn between two.
NO_CALLS = {"LFM2-8B-A1B", "LFM2.5-Instruct", "ibm-granite-granite-3.3-2B-Instruct"}
ONE_CALL = {
    "GigaChat3-10B-A1.8B", "GigaChat3.1-10B-A1.8B", "openai-gpt-oss-120b", "meta-llama-Llama-3.1-8B-Instruct",
    "meta-llama-Llama-3.2-3B-Instruct", "meta-llama-Llama-3.3-70B-Instruct", "fireworks-ai-llama-3-firefunction-v2",
    "NVIDIA-Nemotron-Nano-v2",
}  # fmt: skip
# A message has its text or its calls in them.
TEXT_OR_CALLS = {"llama-cpp-deepseek-r1"}
# Templates that know no tools; DeepSeek's expect them in the system message.
NO_TOOLS = {
    "HuggingFaceTB-SmolLM3-3B", "deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
    "deepseek-ai-DeepSeek-V3.1", "google-gemma-2-2b-it", "llama-cpp-rwkv-world", "microsoft-Phi-3.5-mini-instruct",
}  # fmt: skip
THINKING = {
    "Apertus-8B-Instruct", "Apriel-1.6-15b-Thinker-fixed", "Bielik-11B-v3.0-Instruct", "ByteDance-Seed-OSS",
    "Cohere2MoE", "CohereForAI-c4ai-command-r7b-12-2024-tool_use", "GLM-4.6", "GLM-4.7-Flash",
    "HuggingFaceTB-SmolLM3-3B", "Kimi-K2-Thinking", "Kimi-K3", "LFM2.5-8B-A1B", "LFM2.5-Instruct", "MiniMax-M2",
    "MiniMax-M3", "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "NVIDIA-Nemotron-Nano-v2", "Qwen-QwQ-32B", "Qwen-Qwen3-0.6B",
    "Qwen3.5-4B", "Reka-Edge", "Spark2.5", "StepFun3.5-Flash", "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "deepseek-ai-DeepSeek-V3.1", "deepseek-ai-DeepSeek-V3.2",
    "deepseek-ai-DeepSeek-V4", "deepseek-ai-DeepSeek-V4-Flash-0731", "google-gemma-4-31B-it",
    "google-gemma-4-31B-it-interleaved", "ibm-granite-granite-3.3-2B-Instruct", "inclusionai-ling-3.0-flash",
    "llama-cpp-deepseek-r1", "llama-cpp-rwkv-world", "mistralai-Ministral-3-14B-Reasoning-2512", "muse-glimmer",
    "openai-gpt-oss-120b", "openbmb-MiniCPM5-1B", "poolside-Laguna-S-2.1", "poolside-Laguna-XS-2.1",
    "poolside-Laguna-XS.2", "tencent-Hy3", "unsloth-Apriel-1.5", "upstage-Solar-Open-100B",
}  # fmt: skip


@cache
def renderers() -> list[tuple[str, PromptRenderer]]:
    return [(path.stem, published(path.stem)) for path in sorted(templates_folder().glob("*.jinja"))]


def test_what_the_templates_can_do() -> None:
    found = {name: each.capabilities for name, each in renderers()}
    assert len(found) == 70
    assert {name for name, can in found.items() if "tools" not in can} == NO_TOOLS
    assert {name for name, can in found.items() if "thinking" in can} == THINKING


@pytest.mark.parametrize("think", [None, False, "high", "medium"])
def test_conversations_with_tools_and_thoughts_are_written(think: bool | str | None) -> None:
    answer = Message("assistant", "Let me look.", thinking=THOUGHT, tool_calls=CALLS)
    results = [
        Message("tool", '{"t": 3}', tool_name="get_weather", tool_call_id="abcdef123"),
        Message("tool", "12:00", tool_name="get_time", tool_call_id="abcdef124"),
    ]
    talk = [Message("system", "Be brief."), Message("user", "Weather, time?"), answer, *results]
    longer = [*talk, Message("assistant", "3 degrees."), Message("user", "Thanks!")]
    wrong = []
    for name, each in renderers():
        tools = TOOLS if "tools" in each.capabilities else []
        if think not in (None, False) and "thinking" not in each.capabilities:
            continue
        for messages in (talk, longer):
            text = each.render_chat(messages, tools=tools, think=think).text
            # what knows no tools may leave their results out
            shown = ["Weather, time?", "Be brief.", *(('"t": 3', "12:00") if tools else ())]
            if messages is talk and name == "mistralai-Mistral-Nemo-Instruct-2407":
                shown.remove("Be brief.")  # it writes the system message before the last message, if that is the user's
            wrong += [(name, part) for part in shown if part not in text and part.replace('"', '\\"') not in text]
            if tools and name not in TEXT_OR_CALLS:
                wrong += [(name, tool) for tool in ("get_weather", "get_time") if text.count(tool) < 2]
        assert "Thanks!" in text
    assert not wrong


def answers(name: str, each: PromptRenderer) -> Iterator[tuple[bool | None, str, str, list[Any]]]:
    """What a template writes as an answer: whether it thinks, the prompt before, the answer, and what it must mean."""
    user = Message("user", "Weather?")
    thinks = [True, False] if "thinking" in each.capabilities else [None]
    for think in thinks:
        if think is False and name == "Kimi-K2-Thinking":
            continue  # it cannot be told not to think: it writes empty thoughts
        for n_calls in range(3 if "tools" in each.capabilities and name not in NO_CALLS else 1):
            if n_calls == 2 and name in ONE_CALL:
                continue
            tools = TOOLS if n_calls else []
            message = Message(
                "assistant", "" if n_calls else "Fine.", thinking=THOUGHT if think else "", tool_calls=CALLS[:n_calls]
            )
            prompt = each.render_chat([user], tools=tools, think=think).text
            options: dict[str, Any] = {"tools": tools, "think": think, "add_generation_prompt": False}
            talk = each.writer.write([user, message], **options)
            if not talk.startswith(prompt):
                # some write a prompt that differs from the beginning of the same conversation with its answer
                if prompt.rstrip() not in talk[: len(prompt)]:
                    continue
                prompt = prompt.rstrip()
            expected: list[Any] = [THOUGHT] if think and THOUGHT in talk else []
            expected += ["Fine."] if not n_calls else [(call.name, call.arguments) for call in CALLS[:n_calls]]
            yield think, prompt, _without_end(talk[len(prompt) :]), expected


def _without_end(text: str) -> str:
    text = text.partition("<|END_OF_TURN_TOKEN|>")[0].partition("<|eot_id|><|start_header_id|>")[0]
    while True:
        text = text.rstrip()
        end = next((end for end in _ENDS if text.endswith(end)), None)
        if end is None:
            return text
        text = text.removesuffix(end)


def test_answers_are_read_as_the_templates_write_them() -> None:
    n_read, wrong = 0, []
    for name, each in renderers():
        for think, prompt, text, expected in answers(name, each):
            for pieces in pieces_of(text):
                events = read_answer(each, pieces, tools=TOOLS if len(expected) > 0 else [], think=think, prompt=prompt)
                found = [event.strip() if isinstance(event, str) else event for event in joined(events)]
                if found != expected:
                    wrong.append((name, think, text, found))
                    break
            n_read += 1
    assert not wrong, "\n".join(map(str, wrong))
    assert n_read > 150


def test_calls_that_are_forced_are_read() -> None:
    wrong = []
    for name, each in renderers():
        if "tools" not in each.capabilities:
            continue
        shape = forced_shape(each)
        calls = [f"{call.name}{shape.middle}{json.dumps(call.arguments, ensure_ascii=False)}" for call in CALLS]
        texts = {1: calls[0], 2: calls[0] + (shape.joint or "") + calls[1]}
        for n_calls in (1, 2) if shape.joint is not None else (1,):
            text = (shape.begin + texts[n_calls] + shape.end).replace(PROBE_ID, "abcdef123")
            prompt = each.channels.prompt_end if each.channels is not None else ""
            for pieces in pieces_of(text):
                found = joined(read_answer(each, pieces, tools=TOOLS, prompt=prompt))
                if found != [(call.name, call.arguments) for call in CALLS[:n_calls]]:
                    wrong.append((name, text, found))
                    break
    assert not wrong, "\n".join(map(str, wrong))
