"""The tags that thoughts stand between, and the parser that takes thoughts out of a stream of text."""

from typing import Final

from pyggml_server.templates.events import Content, Event, Thinking
from pyggml_server.templates.partial import held_suffix

__all__ = ["THINK_TAGS", "ThoughtParser", "starts_in_thoughts"]

THINK_TAGS: Final = (
    ("<think>", "</think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("[THINK]", "[/THINK]"),
    ("<|channel>thought", "<channel|>"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    ("<|think|>", "<|end|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
)
"""Those of the families."""


def starts_in_thoughts(prompt: str, tags: tuple[str, str]) -> bool:
    """Whether a prompt ends inside thoughts: its template opened them for the model."""
    return prompt.rstrip().endswith(tags[0])


class ThoughtParser:
    """Separates thoughts at the beginning of an answer from what follows.

    White space around the thoughts is left out. Text that only looks like a tag stays as it is. A closing tag at the
    very beginning says that there are no thoughts.

    Args:
        tags: What thoughts stand between.
        inside: The answer begins inside thoughts.
    """

    def __init__(self, tags: tuple[str, str], *, inside: bool) -> None:
        self._open, self._close = tags
        self._state = self._fresh if inside else self._seek
        self._held = ""
        self._plain = False
        self.done = False
        """No more thoughts can come."""

    def feed(self, text: str) -> list[Event]:
        """What is sure after one more piece of text."""
        if self._plain and not self._held and text and self._close[0] not in text and not text[-1].isspace():
            return [Thinking(text)]
        events: list[Event] = []
        buffer = self._held + text
        self._held = ""
        # each state consumes what it can and says whether another one may go on with the rest
        while buffer or self.done:
            state = self._state
            buffer = state(buffer, events)
            if self._state == state or self.done:
                break
        if self.done:
            if buffer:
                events.append(Content(buffer))
        else:
            self._held = buffer
        return events

    def finish(self) -> list[Event]:
        """What was held back."""
        held, self._held = self._held, ""
        if self._state == self._inside:
            held = held.rstrip()
            return [Thinking(held)] if held else []
        return [Content(held)] if held and self._state == self._seek else []

    def _seek(self, buffer: str, events: list[Event]) -> str:
        text = buffer.lstrip()
        if text.startswith(self._open):
            self._state = self._fresh
            return text[len(self._open) :]
        if text.startswith(self._close):
            self._state = self._after
            return text[len(self._close) :]
        if not self._open.startswith(text) and not self._close.startswith(text):
            self._finish()
        return buffer

    def _fresh(self, buffer: str, events: list[Event]) -> str:
        text = buffer.lstrip()
        if text:
            self._state, self._plain = self._inside, True
        return text

    def _inside(self, buffer: str, events: list[Event]) -> str:
        end = buffer.find(self._close)
        if end >= 0:
            text, rest = buffer[:end].rstrip(), buffer[end + len(self._close) :]
            self._state, self._plain = self._after, False
        else:
            keep = held_suffix(buffer, self._close)
            text = buffer[: len(buffer) - keep].rstrip()
            rest = buffer[len(text) :]
        if text:
            events.append(Thinking(text))
        return rest

    def _after(self, buffer: str, events: list[Event]) -> str:
        text = buffer.lstrip()
        if text:
            self._finish()
        return text

    def _finish(self) -> None:
        self.done = True
