"""Ollama's names for well-known chat templates."""

from typing import Final

__all__ = ["template_name"]

# the first line whose marks are all in the template decides
_MARKS: Final = (
    ("command-r", ("<|START_OF_TURN_TOKEN|>",)),
    ("granite-instruct", ("<|start_of_role|>",)),
    ("llama3-instruct", ("<|start_header_id|>", "<|eot_id|>")),
    ("chatml", ("<|im_start|>", "<|im_end|>")),
    ("gemma3-instruct", ("<start_of_turn>", "first_user_prefix")),
    ("gemma-instruct", ("<start_of_turn>",)),
    ("llama2-chat", ("[INST]", "<<SYS>>")),
    ("mistral-instruct", ("[INST]",)),
    ("phi-3", ("<|user|>", "<|end|>")),
    ("phi-3", ("<|' + message['role'] + '|>", "<|end|>")),
    ("zephyr", ("<|user|>", "<|assistant|>")),
    ("openchat", ("GPT4 Correct ",)),
    ("codellama-70b-instruct", ("Source: ", "<step>")),
    ("solar-instruct", ("### User:", "### Assistant:")),
    ("magicoder", ("@@ Instruction", "@@ Response")),
    ("alpaca", ("### Instruction", "### Response")),
    ("vicuna", ("USER:", "ASSISTANT:")),
    ("falcon-instruct", ("User:", "Falcon:")),
    ("chatqa", ("System: ", "User: ", "Assistant:")),
)


def template_name(source: str) -> str | None:
    """The name of a template, by the marks that it writes; None: it is none of those that have a name.

    Ollama compares whole texts with the originals; a template that was mended is then no longer known.

    Args:
        source: A Jinja template, ``tokenizer.chat_template`` of a GGUF file.
    """
    return next((name for name, marks in _MARKS if all(mark in source for mark in marks)), None)
