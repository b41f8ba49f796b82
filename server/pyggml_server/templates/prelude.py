"""What a model writes before its answer proper, where a grammar binds only that.

Such an answer is made in two passes: the thoughts first, free; then the answer, behind the prompt and what the first
pass left, in the grammar. The first pass ends where the answer would begin, and what it wrote of that is written anew.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from pyggml_server.templates.channels import ChannelFormat
from pyggml_server.templates.events import Content, Event, Thinking
from pyggml_server.templates.renderer import PromptRenderer

__all__ = ["Prelude", "answer_opening", "open_prelude"]


class Prelude(Protocol):
    """The first pass.

    Attributes:
        finished: The answer proper has begun.
    """

    finished: bool

    def take(self, text: str, events: Sequence[Event]) -> list[Event]:
        """Remember what was written; gives back the thoughts among its events."""

    def closed(self) -> str:
        """What stands between the prompt and the answer proper."""


def open_prelude(renderer: PromptRenderer, prompt: str, *, calls: bool) -> Prelude:
    """The first pass of an answer.

    Args:
        renderer: Of the model.
        prompt: Its prompt.
        calls: The answer proper consists of calls of tools.
    """
    if renderer.channels is not None:
        opening = answer_opening(renderer, prompt, calls=calls)
        return _Channels(renderer.channels, opening, in_header=renderer.channels.opens_header(prompt))
    return _Tagged(renderer.think_tags, prompt)


def answer_opening(renderer: PromptRenderer, prompt: str, *, calls: bool) -> str:
    """What must stand behind a prompt so that the answer proper begins, without any thoughts.

    Some families' answers have a header, which a grammar of the content knows nothing of; a grammar of calls has its
    own.
    """
    format = renderer.channels
    return format.answer if format is not None and not calls and format.opens_header(prompt) else ""


class _Tagged:
    """Thoughts between tags."""

    def __init__(self, tags: tuple[str, str] | None, prompt: str) -> None:
        self._tags: Final = tags
        self._opened: Final = tags is not None and prompt.rstrip().endswith(tags[0])
        self._raw = ""
        self.finished = False

    def take(self, text: str, events: Sequence[Event]) -> list[Event]:
        """See :class:`Prelude`."""
        self._raw += text
        answer = next((i for i, event in enumerate(events) if not isinstance(event, Thinking)), None)
        if answer is None:
            return list(events)
        self.finished = True
        rest = "".join(event.text for event in events[answer:] if isinstance(event, Content))
        if rest and self._raw.endswith(rest):
            self._raw = self._raw[: -len(rest)]
        return list(events[:answer])

    def closed(self) -> str:
        """See :class:`Prelude`."""
        if self._tags is None:
            return self._raw
        thoughts, end, _ = self._raw.partition(self._tags[1])
        if end:
            return f"{thoughts}{end}\n\n"  # what came behind is written anew
        if self._opened or self._tags[0] in self._raw:
            return f"{self._raw}\n{self._tags[1]}\n\n"
        return self._raw


class _Channels:
    """Thoughts in messages: one message of them, if the answer begins with one."""

    def __init__(self, format: ChannelFormat, opening: str, *, in_header: bool) -> None:
        self._format: Final = format
        self._opening: Final = opening
        self._in_header: Final = in_header
        self._raw = ""
        self._thoughts: str | None = None
        self.finished = False

    def take(self, text: str, events: Sequence[Event]) -> list[Event]:
        """See :class:`Prelude`."""
        self._raw += text
        header, found, body = self._raw.partition(self._format.header_end)
        if not self._in_header:
            self.finished = bool(self._raw)
        elif found and not self._format.read(header)[0]:
            self.finished = True
        elif found:
            end = min((at for mark in self._format.ends if (at := body.find(mark)) >= 0), default=-1)
            self._thoughts = body if end < 0 else body[:end]
            self.finished = end >= 0
        return [event for event in events if isinstance(event, Thinking)]

    def closed(self) -> str:
        """See :class:`Prelude`."""
        if self._thoughts is None or self._format.thoughts is None:
            return self._opening
        head, end = self._format.thoughts
        return f"{head}{self._thoughts}{end}{self._opening}"
