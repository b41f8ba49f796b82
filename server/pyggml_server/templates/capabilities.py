"""What a model can do, as far as its template decides."""

import re
from typing import Final

from pyggml.errors import TemplateError
from pyggml_server.templates.channels import find_channels
from pyggml_server.templates.go_writer import GoWriter
from pyggml_server.templates.jinja import JinjaWriter
from pyggml_server.templates.messages import Message
from pyggml_server.templates.thoughts import THINK_TAGS
from pyggml_server.templates.writers import Writer

__all__ = ["find_think_tags", "template_capabilities"]

_PROBE: Final = "pyggml_probe_tool"
_NAMED: Final = re.compile(r"reasoning|thinking")
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
    channels = find_channels(writer.source)
    if channels.thoughts is not None if channels is not None else find_think_tags(writer) is not None:
        found.add("thinking")
    if isinstance(writer, GoWriter) and "suffix" in writer.names:
        found.add("insert")
    return frozenset(found)


def find_think_tags(writer: Writer) -> tuple[str, str] | None:
    """What thoughts stand between in the answers of a model; None: it has none, or they stand in a channel."""
    if find_channels(writer.source) is not None:
        return None
    if isinstance(writer, GoWriter) and writer.think_tags is not None:
        return writer.think_tags
    # not in a Go template that writes thoughts into history only, nor where only the documentation names a tag
    for opening, closing in THINK_TAGS:
        if closing in writer.source and (opening in writer.source or closing == "</think>"):
            return opening, closing
    return _written_tags(writer) if isinstance(writer, JinjaWriter) and _NAMED.search(writer.source) else None


def _written_tags(writer: JinjaWriter) -> tuple[str, str] | None:
    """The tags that a template puts together from parts: those around the thoughts that it is given."""
    talk = [Message(role="user", content="probe"), Message(role="assistant", content="done", thinking=_PROBE)]
    try:
        before, found, after = writer.write(talk, tools=(), think=True, add_generation_prompt=False).partition(_PROBE)
    except TemplateError:
        return None
    before, after = before.rstrip(), after.lstrip()
    known = ((a, b) for a, b in THINK_TAGS if before.endswith(a) and after.startswith(b))
    opening, closing = re.search(r"<[^<>\s]+>\Z", before), re.match(r"</[^<>\s]+>", after)
    own = (opening[0], closing[0]) if found and opening is not None and closing is not None else None
    return next(known, own)


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
