"""What a model writes before its answer proper, where a grammar binds only that.

Such an answer is made in two passes: the thoughts first, free; then the answer, behind the prompt and what the first
pass left, in the grammar. The first pass ends where the answer would begin, and what it wrote of that is written anew.
"""

import re
from collections.abc import Sequence
from typing import Final, Protocol

from pyggml_server.templates.events import Content, Event, Thinking
from pyggml_server.templates.renderer import PromptRenderer

__all__ = ["Prelude", "answer_opening", "open_prelude"]

_START: Final = "<|start|>assistant"
_MESSAGE: Final = "<|message|>"
_ANALYSIS: Final = re.compile(r"\s*<\|channel\|>\s*analysis\b")
_END: Final = re.compile(r"<\|(?:end|call|return|start|channel)\|>")
_FINAL: Final = "<|channel|>final<|message|>"


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
    if renderer.harmony:
        return _Channels(answer_opening(renderer, prompt, calls=calls), in_header=prompt.rstrip().endswith(_START))
    return _Tagged(renderer.think_tags, prompt)


def answer_opening(renderer: PromptRenderer, prompt: str, *, calls: bool) -> str:
    """What must stand behind a prompt so that the answer proper begins, without any thoughts.

    Answers of gpt-oss have a header, which a grammar of the content knows nothing of; a grammar of calls has its own.
    """
    in_header = renderer.harmony and prompt.rstrip().endswith(_START)
    return _FINAL if in_header and not calls else ""


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
    """Thoughts in the channel ``analysis`` of gpt-oss: one message of it, if the answer begins with one."""

    def __init__(self, opening: str, *, in_header: bool) -> None:
        self._opening: Final = opening
        self._in_header: Final = in_header
        self._raw = ""
        self._thoughts: str | None = None
        self.finished = False

    def take(self, text: str, events: Sequence[Event]) -> list[Event]:
        """See :class:`Prelude`."""
        self._raw += text
        header, found, body = self._raw.partition(_MESSAGE)
        if not self._in_header:
            self.finished = bool(self._raw)
        elif found and _ANALYSIS.match(header) is None:
            self.finished = True
        elif found:
            end = _END.search(body)
            self._thoughts = body if end is None else body[: end.start()]
            self.finished = end is not None
        return [event for event in events if isinstance(event, Thinking)]

    def closed(self) -> str:
        """See :class:`Prelude`."""
        if self._thoughts is None:
            return self._opening
        return f"<|channel|>analysis{_MESSAGE}{self._thoughts}<|end|>{_START}{self._opening}"
