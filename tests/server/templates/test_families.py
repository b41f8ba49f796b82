# ruff: noqa: E501 (prompts are long lines)
"""The prompt formats of the families, and how they are recognized."""

import pytest

from pyggml_server.templates import Message
from pyggml_server.templates.detection import detect_family
from pyggml_server.templates.families import FAMILIES
from pyggml_server.templates.go_writer import GoWriter

TALK = [Message("system", "S"), Message("user", "Q"), Message("assistant", "A"), Message("user", "R")]

# A first question with a system message, a question, an answer, the beginning of an answer; as the families' model cards
# and documentation give them. BOS is the tokenizer's business.
PARTS = {
    "chatml": ("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n", "<|im_start|>user\n{}<|im_end|>\n", "<|im_start|>assistant\n{}<|im_end|>\n", "<|im_start|>assistant\n"),
    "llama3": ("<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>", "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>", "<|start_header_id|>assistant<|end_header_id|>\n\n{}<|eot_id|>", "<|start_header_id|>assistant<|end_header_id|>\n\n"),
    "llama2": ("[INST] <<SYS>>\nS\n<</SYS>>\n\n{} [/INST]", "[INST] {} [/INST]", " {}</s>", " "),
    "mistral": ("[INST] S\n\n{} [/INST]", "[INST] {} [/INST]", " {}</s>", " "),
    "gemma": ("<start_of_turn>user\nS\n\n{}<end_of_turn>\n", "<start_of_turn>user\n{}<end_of_turn>\n", "<start_of_turn>model\n{}<end_of_turn>\n", "<start_of_turn>model\n"),
    "phi-3": ("<|system|>\nS<|end|>\n<|user|>\n{}<|end|>\n", "<|user|>\n{}<|end|>\n", "<|assistant|>\n{}<|end|>\n", "<|assistant|>\n"),
    "zephyr": ("<|system|>\nS</s>\n<|user|>\n{}</s>\n", "<|user|>\n{}</s>\n", "<|assistant|>\n{}</s>\n", "<|assistant|>\n"),
    "command-r": ("<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>S<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>{}<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{}<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{}<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"),
    "granite": ("<|start_of_role|>system<|end_of_role|>S<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>{}<|end_of_text|>\n", "<|start_of_role|>user<|end_of_role|>{}<|end_of_text|>\n", "<|start_of_role|>assistant<|end_of_role|>{}<|end_of_text|>\n", "<|start_of_role|>assistant<|end_of_role|>"),
    "vicuna": ("S\n\nUSER: {} ", "USER: {} ", "ASSISTANT: {}</s>", "ASSISTANT: "),
    "alpaca": ("S\n\n### Instruction:\n{}\n\n", "### Instruction:\n{}\n\n", "### Response:\n{}\n\n", "### Response:\n"),
    "solar": ("### System:\nS\n\n### User:\n{}\n\n", "### User:\n{}\n\n", "### Assistant:\n{}</s>\n\n", "### Assistant:\n"),
    "openchat": ("GPT4 Correct System: S<|end_of_turn|>GPT4 Correct User: {}<|end_of_turn|>", "GPT4 Correct User: {}<|end_of_turn|>", "GPT4 Correct Assistant: {}<|end_of_turn|>", "GPT4 Correct Assistant: "),
    "alfred": ("<start_system>S<end_message><start_user>{}<end_message>", "<start_user>{}<end_message>", "<start_assistant>{}<end_message>", "<start_assistant>"),
    "codellama-70b": ("Source: system\n\n S <step> Source: user\n\n {} <step> ", "Source: user\n\n {} <step> ", "Source: assistant\nDestination: user\n\n {} <step> ", "Source: assistant\nDestination: user\n\n "),
    "magicoder": ("S\n\n@@ Instruction\n{}\n\n", "@@ Instruction\n{}\n\n", "@@ Response\n{}\n\n", "@@ Response\n"),
    "starcoder2": ("S\n\n### Instruction\n{}\n\n", "### Instruction\n{}\n\n", "### Response\n{}<|endoftext|>\n", "### Response\n"),
    "chatqa": ("System: S\n\nUser: {}\n\n", "User: {}\n\n", "Assistant: {}\n\n", "Assistant: "),
    "falcon": ("System: S\nUser: {}\n", "User: {}\n", "Assistant: {}\n", "Assistant: "),
    "deepseek": ("S<｜User｜>{}", "<｜User｜>{}", "<｜Assistant｜>{}<｜end▁of▁sentence｜>", "<｜Assistant｜>"),
}  # fmt: skip


def test_every_family_is_here() -> None:
    assert {family.name for family in FAMILIES} == set(PARTS)
    assert len(PARTS) == 20


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_format(family: object) -> None:
    name, template = family.name, family.template  # type: ignore[attr-defined]
    first, question, answer, opening = PARTS[name]
    expected = {
        (0, 4): first.format("Q") + answer.format("A") + question.format("R") + opening,
        (1, 4): question.format("Q") + answer.format("A") + question.format("R") + opening,
        (1, 2): question.format("Q") + opening,
    }
    writer = GoWriter(template)
    for (start, end), text in expected.items():
        assert writer.write(TALK[start:end], tools=[], think=None, add_generation_prompt=True) == text


@pytest.mark.parametrize("family", [f for f in FAMILIES if "{{ range" in f.template or "{{- range" in f.template])
def test_an_answer_under_way_stays_open(family: object) -> None:
    text = GoWriter(family.template).write(TALK[:3], tools=[], think=None, add_generation_prompt=True)  # type: ignore[attr-defined]
    assert text.endswith("A")


_CHATML = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (_CHATML + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}", "chatml"),
        # cannot be compiled: its marks tell
        (_CHATML + "{% unknown %}", "chatml"),
        ("{{ bos }}{% nothing %}[INST] <<SYS>> ", "llama2"),
        ("{% nothing %}[INST] [/INST]", "mistral"),
        # behaves like zephyr, though its marks are put together from parts
        ("{% for m in messages %}{{ '<' ~ '|' ~ m.role ~ '|>\n' ~ m.content }}</s>\n{% endfor %}<|assistant|>\n", "zephyr"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", None),
        ("", None),
    ],
)  # fmt: skip
def test_detection(source: str, name: str | None) -> None:
    found = detect_family(source)
    assert (found.name if found is not None else None) == name
