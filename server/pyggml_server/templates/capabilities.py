"""What a model can do, as far as its template decides."""

from typing import Final

from pyggml.errors import TemplateError
from pyggml_server.templates.go_writer import GoWriter
from pyggml_server.templates.jinja import JinjaWriter
from pyggml_server.templates.messages import Message
from pyggml_server.templates.thoughts import THINK_TAGS
from pyggml_server.templates.writers import Writer

__all__ = ["find_think_tags", "is_harmony", "template_capabilities"]

_PROBE: Final = "pyggml_probe_tool"
_TOOL: Final = {
    "type": "function",
    "function": {
        "name": _PROBE,
        "description": "A probe.",
        "parameters": {
            "type": "object",
            "properties": {"probe": {"type": "string", "description": "Text."}},
            "required": ["probe"],
        },
    },
}


def template_capabilities(writer: Writer) -> frozenset[str]:
    """Those of ``tools``, ``thinking`` and ``insert`` that a template provides for."""
    found = set()
    if _knows_tools(writer):
        found.add("tools")
    if is_harmony(writer.source) or find_think_tags(writer) is not None:
        found.add("thinking")
    if isinstance(writer, GoWriter) and "suffix" in writer.names:
        found.add("insert")
    return frozenset(found)


def find_think_tags(writer: Writer) -> tuple[str, str] | None:
    """What thoughts stand between in the answers of a model; None: it has none, or they stand in a channel."""
    if is_harmony(writer.source):
        return None
    if isinstance(writer, GoWriter) and writer.think_tags is not None:
        return writer.think_tags
    # not in a Go template that writes thoughts into history only, nor where only the documentation names a tag
    return next((tags for tags in THINK_TAGS if tags[1] in writer.source), None)


def is_harmony(source: str) -> bool:
    """Whether a template is of the family whose answers have channels (gpt-oss)."""
    return "<|channel|>" in source and "<|message|>" in source


def _knows_tools(writer: Writer) -> bool:
    if isinstance(writer, GoWriter):
        return "tools" in writer.names
    if not isinstance(writer, JinjaWriter) or "tools" not in writer.source:
        return False
    try:
        text = writer.write(
            [Message(role="user", content="probe")], tools=[_TOOL], think=None, add_generation_prompt=True
        )
    except TemplateError:
        # it may want more than a single question
        return True
    return _PROBE in text
