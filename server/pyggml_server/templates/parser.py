"""Parsers of answers: thoughts, content and calls of tools, as the text streams in."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pyggml_server.templates.events import Content, Event
from pyggml_server.templates.renderer import PromptRenderer
from pyggml_server.templates.thoughts import ThoughtParser, starts_in_thoughts

__all__ = ["OutputParser", "output_parser"]


class OutputParser(Protocol):
    """Takes an answer piece by piece, and gives events as soon as they are sure.

    However the text is cut into pieces, the events are the same once neighbours of a kind are joined.
    """

    def feed(self, text: str) -> list[Event]:
        """Events that are sure after one more piece."""

    def finish(self) -> list[Event]:
        """What was held back: the text has ended."""


class PlainParser:
    """Everything is content."""

    def feed(self, text: str) -> list[Event]:
        """See :class:`OutputParser`."""
        return [Content(text)] if text else []

    def finish(self) -> list[Event]:
        """See :class:`OutputParser`."""
        return []


def output_parser(
    renderer: PromptRenderer,
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    think: bool | str | None = None,
    prompt: str = "",
) -> OutputParser:
    """The parser for an answer to a prompt.

    Args:
        renderer: What wrote the prompt.
        tools: Tools that may be called.
        think: What the prompt was rendered with; thoughts are looked for unless it is None or False.
        prompt: Its text, which tells whether the answer begins inside thoughts.
    """
    if think and renderer.think_tags is not None:
        return ThoughtParser(renderer.think_tags, inside=starts_in_thoughts(prompt, renderer.think_tags))
    return PlainParser()
