"""Finds the family of a Jinja template, for files whose template cannot be used as it is."""

from pyggml.errors import TemplateError
from pyggml_server.templates.families import FAMILIES, Family
from pyggml_server.templates.go_writer import GoWriter
from pyggml_server.templates.jinja import JinjaWriter
from pyggml_server.templates.messages import Message

__all__ = ["detect_family"]

_CONVERSATION = (
    Message(role="user", content="first question"),
    Message(role="assistant", content="first answer"),
    Message(role="user", content="second question"),
)


def detect_family(source: str) -> Family | None:
    """The family of a Jinja template: one that writes a conversation in the same way, else one whose marks it has.

    Args:
        source: The template; it need not be one that can be compiled.

    Returns:
        None: no known family.
    """
    if not source:
        return None
    marked = [family for family in FAMILIES if all(mark in source for mark in family.marks)]
    try:
        expected = _normal(JinjaWriter(source, bos="", eos=""))
    except TemplateError:
        expected = None
    same = (family for family in FAMILIES if expected and _normal(GoWriter(family.template)) == expected)
    # of several whose marks are there, the one with the most is the most particular
    return next(same, None) or max(marked, key=lambda family: len(family.marks), default=None)


def _normal(writer: GoWriter | JinjaWriter) -> str:
    text = writer.write(_CONVERSATION, tools=(), think=None, add_generation_prompt=True)
    for token in ("<s>", "</s>", "<bos>", "<|begin_of_text|>", "<|endoftext|>"):
        text = text.replace(token, "")
    return "".join(text.split())
