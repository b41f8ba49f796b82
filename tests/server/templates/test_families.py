# ruff: noqa: E501 (prompts are long lines)
"""The prompt formats of the families, and how they are recognized."""

import pytest

from pyggml_server.templates import Message
from pyggml_server.templates.detection import detect_family
from pyggml_server.templates.families import FAMILIES
from pyggml_server.templates.go_writer import GoWriter

TALK = [Message("system", "S"), Message("user", "Q"), Message("assistant", "A"), Message("user", "R")]

# as the families' model cards and documentation give them; BOS is the tokenizer's business
EXPECTED = {
    "chatml": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
    "<|im_start|>user\nR<|im_end|>\n<|im_start|>assistant\n",
    "llama3": "<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nR<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "llama2": "[INST] <<SYS>>\nS\n<</SYS>>\n\nQ [/INST] A</s>[INST] R [/INST] ",
    "mistral": "[INST] S\n\nQ [/INST] A</s>[INST] R [/INST] ",
    "gemma": "<start_of_turn>user\nS\n\nQ<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n<start_of_turn>user\nR<end_of_turn>\n"
    "<start_of_turn>model\n",
    "phi-3": "<|system|>\nS<|end|>\n<|user|>\nQ<|end|>\n<|assistant|>\nA<|end|>\n<|user|>\nR<|end|>\n<|assistant|>\n",
    "zephyr": "<|system|>\nS</s>\n<|user|>\nQ</s>\n<|assistant|>\nA</s>\n<|user|>\nR</s>\n<|assistant|>\n",
    "command-r": "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>S<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Q"
    "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>A<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>R"
    "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    "granite": "<|start_of_role|>system<|end_of_role|>S<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>Q<|end_of_text|>\n"
    "<|start_of_role|>assistant<|end_of_role|>A<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>R<|end_of_text|>\n"
    "<|start_of_role|>assistant<|end_of_role|>",
    "vicuna": "S\n\nUSER: Q ASSISTANT: A</s>USER: R ASSISTANT: ",
    "alpaca": "S\n\n### Instruction:\nQ\n\n### Response:\nA\n\n### Instruction:\nR\n\n### Response:\n",
    "solar": "### System:\nS\n\n### User:\nQ\n\n### Assistant:\nA</s>\n\n### User:\nR\n\n### Assistant:\n",
    "openchat": "GPT4 Correct System: S<|end_of_turn|>GPT4 Correct User: Q<|end_of_turn|>GPT4 Correct Assistant: A<|end_of_turn|>"
    "GPT4 Correct User: R<|end_of_turn|>GPT4 Correct Assistant: ",
    "falcon": "System: S\nUser: Q\nAssistant: A\nUser: R\nAssistant: ",
    "deepseek": "S<｜User｜>Q<｜Assistant｜>A<｜end▁of▁sentence｜><｜User｜>R<｜Assistant｜>",
}  # fmt: skip


def test_every_family_is_here() -> None:
    assert {family.name for family in FAMILIES} == set(EXPECTED)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_format(family: object) -> None:
    name, template = family.name, family.template  # type: ignore[attr-defined]
    assert GoWriter(template).write(TALK, tools=[], think=None, add_generation_prompt=True) == EXPECTED[name]


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
