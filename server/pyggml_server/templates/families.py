"""Prompt formats that many models share, as Go templates of our own after each family's documentation."""

from dataclasses import dataclass
from typing import Final

__all__ = ["FAMILIES", "Family"]


@dataclass(frozen=True, slots=True)
class Family:
    """A prompt format.

    Attributes:
        name: Of the format.
        template: Writes it.
        marks: Texts that are in every Jinja template of the family.
        stops: What ends an answer, where the model's end-of-text token does not.
    """

    name: str
    template: str
    marks: tuple[str, ...]
    stops: tuple[str, ...] = ()


def _roles(*, before: str, between: str, after: str, assistant: str = "assistant", first: str = "") -> str:
    """A template in which every message stands between the same marks, with its role."""
    return (
        f"{first}{{{{- range $i, $m := .Messages }}}}"
        f'{before}{{{{ if eq .Role "assistant" }}}}{assistant}{{{{ else }}}}{{{{ .Role }}}}{{{{ end }}}}{between}'
        f'{{{{ .Content }}}}{{{{ if not (and (eq .Role "assistant") (eq (len (slice $.Messages $i)) 1)) }}}}{after}'
        "{{ end }}{{ end }}"
        f'{{{{ if ne (index .Messages (len (slice .Messages 1))).Role "assistant" }}}}{before}{assistant}{between}'
        "{{ end }}"
    )


def _turns(user: str, answer: str, system: str, *, end: str = "") -> str:
    """A template of the older form, of which every round is written alone."""
    head = f"{{{{ if .System }}}}{system}{{{{ end }}}}{{{{ if .Prompt }}}}{user}{{{{ end }}}}"
    return f"{head}{answer}{{{{ .Response }}}}{end}"


FAMILIES: Final = (
    Family(
        "chatml",
        _roles(before="<|im_start|>", between="\n", after="<|im_end|>\n"),
        ("<|im_start|>", "<|im_end|>"),
        ("<|im_start|>", "<|im_end|>"),
    ),
    Family(
        "llama3",
        _roles(before="<|start_header_id|>", between="<|end_header_id|>\n\n", after="<|eot_id|>"),
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    Family(
        "llama2",
        "{{ if .Prompt }}[INST] {{ if .System }}<<SYS>>\n{{ .System }}\n<</SYS>>\n\n{{ end }}{{ .Prompt }} [/INST]"
        "{{ end }} {{ .Response }}</s>",
        ("[INST]", "<<SYS>>"),
        ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
    ),
    Family(
        "mistral",
        "{{ if .Prompt }}[INST] {{ if .System }}{{ .System }}\n\n{{ end }}{{ .Prompt }} [/INST]{{ end }}"
        " {{ .Response }}</s>",
        ("[INST]", "[/INST]"),
        ("[INST]", "[/INST]"),
    ),
    Family(
        "gemma",
        "{{ if .Prompt }}<start_of_turn>user\n{{ if .System }}{{ .System }}\n\n{{ end }}{{ .Prompt }}<end_of_turn>\n"
        "{{ end }}<start_of_turn>model\n{{ .Response }}<end_of_turn>\n",
        ("<start_of_turn>", "<end_of_turn>"),
        ("<start_of_turn>", "<end_of_turn>"),
    ),
    Family(
        "phi-3",
        _roles(before="<|", between="|>\n", after="<|end|>\n"),
        ("<|user|>", "<|assistant|>", "<|end|>"),
        ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>"),
    ),
    Family(
        "zephyr",
        _roles(before="<|", between="|>\n", after="</s>\n"),
        ("<|user|>", "<|assistant|>"),
        ("<|system|>", "<|user|>", "<|assistant|>", "</s>"),
    ),
    Family(
        "command-r",
        "{{ range $i, $m := .Messages }}<|START_OF_TURN_TOKEN|>"
        '{{ if eq .Role "system" }}<|SYSTEM_TOKEN|>{{ else if eq .Role "assistant" }}<|CHATBOT_TOKEN|>{{ else }}'
        "<|USER_TOKEN|>{{ end }}{{ .Content }}"
        '{{ if not (and (eq .Role "assistant") (eq (len (slice $.Messages $i)) 1)) }}<|END_OF_TURN_TOKEN|>{{ end }}'
        '{{ end }}{{ if ne (index .Messages (len (slice .Messages 1))).Role "assistant" }}'
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{{ end }}",
        ("<|START_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>"),
        ("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
    ),
    Family(
        "granite",
        _roles(before="<|start_of_role|>", between="<|end_of_role|>", after="<|end_of_text|>\n"),
        ("<|start_of_role|>", "<|end_of_role|>"),
        ("<|end_of_text|>", "<|start_of_role|>"),
    ),
    Family(
        "vicuna",
        _turns("USER: {{ .Prompt }} ", "ASSISTANT: ", "{{ .System }}\n\n", end="</s>"),
        ("USER:", "ASSISTANT:"),
        ("USER:", "ASSISTANT:"),
    ),
    Family(
        "alpaca",
        _turns("### Instruction:\n{{ .Prompt }}\n\n", "### Response:\n", "{{ .System }}\n\n", end="\n\n"),
        ("### Instruction:", "### Response:"),
        ("### Instruction:", "### Response:"),
    ),
    Family(
        "solar",
        _turns("### User:\n{{ .Prompt }}\n\n", "### Assistant:\n", "### System:\n{{ .System }}\n\n", end="</s>\n\n"),
        ("### User:", "### Assistant:"),
        ("### System:", "### User:", "### Assistant:", "</s>"),
    ),
    Family(
        "openchat",
        _turns(
            "GPT4 Correct User: {{ .Prompt }}<|end_of_turn|>",
            "GPT4 Correct Assistant: ",
            "GPT4 Correct System: {{ .System }}<|end_of_turn|>",
            end="<|end_of_turn|>",
        ),
        ("GPT4 Correct User", "<|end_of_turn|>"),
        ("<|end_of_turn|>",),
    ),
    Family(
        "alfred",
        _turns(
            "<start_user>{{ .Prompt }}<end_message>",
            "<start_assistant>",
            "<start_system>{{ .System }}<end_message>",
            end="<end_message>",
        ),
        ("<start_user>", "<start_assistant>", "<end_message>"),
        ("<start_user>", "<end_message>", "<start_system>", "<start_assistant>"),
    ),
    Family(
        "codellama-70b",
        _turns(
            "Source: user\n\n {{ .Prompt }} <step> ",
            "Source: assistant\nDestination: user\n\n ",
            "Source: system\n\n {{ .System }} <step> ",
            end=" <step> ",
        ),
        ("Source:", "Destination:", "<step>"),
        ("Source:", "Destination:", "<step>"),
    ),
    Family(
        "magicoder",
        _turns("@@ Instruction\n{{ .Prompt }}\n\n", "@@ Response\n", "{{ .System }}\n\n", end="\n\n"),
        ("@@ Instruction", "@@ Response"),
        ("@@ Instruction", "@@ Response"),
    ),
    Family(
        "starcoder2",
        _turns("### Instruction\n{{ .Prompt }}\n\n", "### Response\n", "{{ .System }}\n\n", end="<|endoftext|>\n"),
        ("### Instruction\\n", "### Response\\n"),
        ("### Instruction", "### Response", "<|endoftext|>"),
    ),
    Family(
        "chatqa",
        _turns("User: {{ .Prompt }}\n\n", "Assistant: ", "System: {{ .System }}\n\n", end="\n\n"),
        ("System: ", "User: ", "Assistant:", "chatqa"),
        ("System:", "User:", "Assistant:", "<|begin_of_text|>"),
    ),
    Family(
        "falcon",
        _turns("User: {{ .Prompt }}\n", "Assistant: ", "System: {{ .System }}\n", end="\n"),
        ("User:", "Assistant:", "Falcon"),
        ("User:", "Assistant:"),
    ),
    Family(
        "deepseek",
        "{{ range $i, $m := .Messages }}"
        '{{ if eq .Role "user" }}<｜User｜>{{ else if eq .Role "assistant" }}<｜Assistant｜>{{ end }}{{ .Content }}'
        '{{ if and (eq .Role "assistant") (ne (len (slice $.Messages $i)) 1) }}<｜end▁of▁sentence｜>{{ end }}{{ end }}'
        '{{ if ne (index .Messages (len (slice .Messages 1))).Role "assistant" }}<｜Assistant｜>{{ end }}',
        ("<｜User｜>", "<｜Assistant｜>"),
        ("<｜User｜>", "<｜end▁of▁sentence｜>"),
    ),
)
"""All of them, the more particular before those that they contain."""
