"""The published templates that llama.cpp collects, rendered here and by plain Jinja with transformers' options."""

from pathlib import Path
from typing import Any

import jinja2
import pytest

from pyggml.chat import ChatTemplate
from pyggml.errors import TemplateError
from tokenizer.vocabs import VocabsMissing, vocab_folder

from .reference import NOW, render

pytestmark = pytest.mark.model

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Das Wétter",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "where"}},
                "required": ["city"],
            },
        },
    }
]
CALL = {
    "id": "abcdef123",
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"city": "Köln"}},
}
CONVERSATIONS: dict[str, dict[str, Any]] = {
    "user": {"messages": [{"role": "user", "content": "Hi <there> & you"}], "tools": None},
    "turns": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "A?"},
            {"role": "assistant", "content": '<think>\nhm\n</think>\n\nB "ü"'},
            {"role": "user", "content": "C\n"},
        ],
        "tools": None,
    },
    "tools": {
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef123", "content": '{"t": 3}'},
        ],
        "tools": TOOLS,
    },
}
# Conversations that a template refuses or cannot take, by design of the template; the others must render.
REFUSED = {
    "CohereForAI-c4ai-command-r-plus-tool_use": {"user", "turns"},  # only with tools
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": {"user", "turns"},
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": {"user", "turns"},
    "fireworks-ai-llama-3-firefunction-v2": {"user", "turns", "tools"},  # wants a variable "functions"
    "google-gemma-2-2b-it": {"turns", "tools"},  # no system role, no tools
    "meetkai-functionary-medium-v3.2": {"tools"},  # arguments as a string
}
# The reference fails where an iterator goes to tojson; here iterators become lists first.
ONLY_HERE = {("llama-cpp-deepseek-r1", "tools")}


def folder() -> Path:
    try:
        return vocab_folder() / "templates"
    except VocabsMissing as error:
        pytest.fail(str(error))


def test_every_template_renders_like_the_reference() -> None:
    paths = sorted(folder().glob("*.jinja"))
    assert len(paths) == 70
    for path in paths:
        source = path.read_text(encoding="utf-8")
        template = ChatTemplate(source, bos_token="<s>", eos_token="</s>", clock=lambda: NOW)
        for name, conversation in CONVERSATIONS.items():
            refused = name in REFUSED.get(path.stem, set())
            expected = None if (path.stem, name) in ONLY_HERE else reference(source, conversation)
            assert (expected is None) == (refused or (path.stem, name) in ONLY_HERE), (path.stem, name)
            if refused:
                with pytest.raises(TemplateError):
                    template.render(**conversation)
            elif expected is None:
                assert "get_weather" in template.render(**conversation)
            else:
                assert template.render(**conversation) == expected, (path.stem, name)


def reference(source: str, conversation: dict[str, Any]) -> str | None:
    """The reference's text, or None if the template refuses the conversation."""
    given = {"bos_token": "<s>", "eos_token": "</s>", "documents": None, "add_generation_prompt": True}
    try:
        return render(source, **conversation, **given)
    except (jinja2.TemplateError, TypeError):
        return None
