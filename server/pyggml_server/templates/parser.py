"""Parsers of answers: thoughts, content and calls of tools, as the text streams in."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from pyggml_server.templates.calls import CallParser
from pyggml_server.templates.channels import ChannelParser
from pyggml_server.templates.decoding import Schemas
from pyggml_server.templates.events import Content, Event
from pyggml_server.templates.formats import CallFormat
from pyggml_server.templates.renderer import PromptRenderer
from pyggml_server.templates.thoughts import ThoughtParser, starts_in_thoughts

__all__ = ["OutputParser", "output_parser"]


class OutputParser(Protocol):
    """Takes an answer piece by piece, and gives events as soon as they are sure.

    However the text is cut into pieces, the events are the same once neighbours of a kind are joined.
    """

    def feed(self, text: str) -> list[Event]:
        """Events that are sure after one more piece."""

    def finish(self, *, cut: bool = False) -> list[Event]:
        """What was held back: the text has ended.

        Args:
            cut: By a limit or a stop string, not by the model. A call that has begun is withheld then.
        """


class PlainParser:
    """Everything is content."""

    def feed(self, text: str) -> list[Event]:
        """See :class:`OutputParser`."""
        return [Content(text)] if text else []

    def finish(self, *, cut: bool = False) -> list[Event]:
        """See :class:`OutputParser`."""
        return []


class ThoughtsThenCalls:
    """Thoughts first, calls of tools in what follows.

    Args:
        thoughts: Takes the thoughts.
        rest: Takes what follows.
    """

    def __init__(self, thoughts: ThoughtParser, rest: OutputParser) -> None:
        self._thoughts: Final = thoughts
        self._rest: Final = rest

    def feed(self, text: str) -> list[Event]:
        """See :class:`OutputParser`."""
        if self._thoughts.done:
            return self._rest.feed(text)
        return self._pass_on(self._thoughts.feed(text))

    def finish(self, *, cut: bool = False) -> list[Event]:
        """See :class:`OutputParser`."""
        return [*self._pass_on(self._thoughts.finish()), *self._rest.finish(cut=cut)]

    def _pass_on(self, events: list[Event]) -> list[Event]:
        found: list[Event] = []
        for event in events:
            found += self._rest.feed(event.text) if isinstance(event, Content) else [event]
        return found


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
        tools: Tools that may be called; without any, nothing is taken for a call.
        think: What the prompt was rendered with; where it is None or False, thoughts are looked for only if the prompt
            opens them all the same.
        prompt: Its text, which tells whether the answer begins inside thoughts; empty: an answer proper goes on.
    """
    schemas = _schemas(tools)
    if renderer.channels is not None:
        return ChannelParser(renderer.channels, schemas, in_header=renderer.channels.opens_header(prompt))
    format = renderer.call_format if tools else CallFormat(wraps=renderer.call_format.wraps)
    rest: OutputParser = CallParser(format, schemas) if tools or format.wraps else PlainParser()
    if renderer.think_tags is not None:
        inside = starts_in_thoughts(prompt, renderer.think_tags)
        # some templates open thoughts whatever they are told
        if think or inside:
            return ThoughtsThenCalls(ThoughtParser(renderer.think_tags, inside=inside), rest)
    return rest


def _schemas(tools: Sequence[Mapping[str, Any]]) -> Schemas:
    functions = [tool.get("function") or {} for tool in tools]
    return {function.get("name", ""): function.get("parameters") or {} for function in functions}
