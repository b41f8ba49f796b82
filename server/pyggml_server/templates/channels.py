"""Answers made of messages, each with a header that says what it is: the families' formats, and their parser."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pyggml_server.templates.calls import new_call_id
from pyggml_server.templates.decoding import Schemas, decode_calls
from pyggml_server.templates.events import Content, Event, Thinking
from pyggml_server.templates.messages import ToolCall
from pyggml_server.templates.partial import held_suffix_of_any
from pyggml_server.templates.probing import CallShape

__all__ = ["ChannelFormat", "ChannelParser", "find_channels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFormat:
    """How a family writes messages.

    Attributes:
        marks: Texts that are in every template of the family.
        prompt_end: A prompt that ends so is followed by a header.
        header_end: Between a header and its text.
        ends: What ends a message.
        heads: Those of ``ends`` that belong to the next header.
        recipient: Finds, as its first group, whom a message is for.
        thoughts: Header and end of a message of thoughts, up to the next header; None: there are none.
        answer: The header of the answer proper.
        call: How calls are written.
        strict: What is no header of the answer or of a tool is text; else every header is one.
    """

    marks: tuple[str, ...]
    prompt_end: str
    header_end: str
    ends: tuple[str, ...]
    recipient: str
    answer: str
    call: CallShape
    heads: tuple[str, ...] = ()
    thoughts: tuple[str, str] | None = None
    strict: bool = False

    def opens_header(self, prompt: str) -> bool:
        """Whether the answer to a prompt begins with a header."""
        return prompt.rstrip().endswith(self.prompt_end)

    def read(self, header: str) -> tuple[bool, str | None]:
        """Whether a header is that of thoughts, and the tool that a call is for."""
        found = re.search(self.recipient, header)
        name = found[1] if found is not None else None
        if name in ("self", "user", "all"):
            return name == "self", None
        channel = re.search(r"<\|channel\|>\s*(\w+)", header)
        return name is None and channel is not None and channel[1] == "analysis", name


_FORMATS: Final = (
    # gpt-oss: thoughts in the channel "analysis", calls to "functions.…"
    ChannelFormat(
        marks=("<|channel|>", "<|message|>"),
        prompt_end="<|start|>assistant",
        header_end="<|message|>",
        ends=("<|end|>", "<|call|>", "<|return|>", "<|start|>", "<|channel|>"),
        heads=("<|channel|>",),
        recipient=r"to=(?:functions\.)?([\w.\-]+)",
        thoughts=("<|channel|>analysis<|message|>", "<|end|><|start|>assistant"),
        answer="<|channel|>final<|message|>",
        call=CallShape("<|channel|>commentary to=functions.", " <|constrain|>json<|message|>", "", None),
    ),
    # Muse Glimmer: thoughts to "self", answers to "user", calls to the tool
    ChannelFormat(
        marks=("<atem:function_calls>", "<|message|>"),
        prompt_end="<|start|>assistant",
        header_end="<|message|>",
        ends=("<|eom|>", "<|eot|>", "<|start|>"),
        recipient=r"to=([\w.\-]+)",
        thoughts=(" to=self<|message|>", "<|eom|><|start|>assistant"),
        answer=" to=user<|message|>",
        call=CallShape(" to=", "<|message|>", "", None),
    ),
    # Functionary 3.2: a line with the recipient
    ChannelFormat(
        marks=(">>>all", "<|start_header_id|>"),
        prompt_end=">>>",
        header_end="\n",
        ends=(">>>",),
        recipient=r"\A([\w.\-]+)\Z",
        answer="all\n",
        call=CallShape("", "\n", "", None),
        strict=True,
    ),
)


def find_channels(source: str) -> ChannelFormat | None:
    """The format of a template's family; None: its answers are not made of messages."""
    return next((format for format in _FORMATS if all(mark in source for mark in format.marks)), None)


class ChannelParser:
    """Takes messages apart: thoughts, calls, and what is for the user.

    Args:
        format: Of the family.
        schemas: Of the tools' arguments, by the tool's name.
        in_header: The answer begins with the header of a message; else with content.
    """

    def __init__(self, format: ChannelFormat, schemas: Schemas, *, in_header: bool) -> None:
        self._format: Final = format
        self._schemas: Final = schemas
        self._names: Final = frozenset({"all", *schemas})
        self._end: Final = re.compile("|".join(map(re.escape, format.ends)))
        self._firsts: Final = frozenset(end[0] for end in format.ends)
        self._held = ""
        self._in_header = in_header
        self._mark = ""
        self._thinking = False
        self._call: str | None = None
        self._arguments = ""
        self._index = 0

    def feed(self, text: str) -> list[Event]:
        """Events that are sure after one more piece."""
        plain = not self._held and not self._in_header and self._call is None
        if plain and text and self._firsts.isdisjoint(text):
            return [Thinking(text) if self._thinking else Content(text)]
        events: list[Event] = []
        self._held += text
        while self._held and (self._read_header(events) if self._in_header else self._read_body(events)):
            pass
        return events

    def finish(self, *, cut: bool = False) -> list[Event]:
        """What was held back.

        Args:
            cut: The answer was ended by a limit, not by the model: a call that is not complete is withheld.
        """
        events: list[Event] = []
        held, self._held = self._held, ""
        if self._in_header:
            # a header that never ended: plain text, unless it consists of the format's own words
            if held and "<|" not in held and re.search(self._format.recipient, held) is None:
                self._write(self._mark + held, events)
            return events
        self._write(held, events)
        self._close(events, cut=cut)
        return events

    def _read_header(self, events: list[Event]) -> bool:
        at = self._held.find(self._format.header_end)
        header = self._held if at < 0 else self._held[:at]
        if self._format.strict and not self._may_be_header(header, whole=at >= 0):
            self._held = self._mark + self._held
            text, self._held = self._held[: len(self._mark) + len(header)], self._held[len(self._mark) + len(header) :]
            self._in_header = False
            self._write(text, events)
            return True
        if at < 0:
            return False
        self._held = self._held[at + len(self._format.header_end) :]
        self._close(events)
        self._thinking, self._call = self._format.read(header)
        self._in_header = False
        return True

    def _may_be_header(self, header: str, *, whole: bool) -> bool:
        return header in self._names if whole else any(name.startswith(header) for name in self._names)

    def _read_body(self, events: list[Event]) -> bool:
        found = self._end.search(self._held)
        if found is None:
            keep = held_suffix_of_any(self._held, self._format.ends)
            text = self._held[: len(self._held) - keep]
            self._held = self._held[len(text) :]
            self._write(text, events)
            return False
        self._write(self._held[: found.start()], events)
        if not self._format.strict:
            self._close(events)
        # the next message's header may begin with the tag that ended this one
        self._held = self._held[found.start() if found.group() in self._format.heads else found.end() :]
        self._mark = found.group() if self._format.strict else ""
        self._in_header = True
        return True

    def _write(self, text: str, events: list[Event]) -> None:
        if not text:
            return
        if self._call is not None:
            self._arguments += text
        else:
            events.append(Thinking(text) if self._thinking else Content(text))

    def _close(self, events: list[Event], *, cut: bool = False) -> None:
        """The end of a message: complete its call; if it was cut off, only one that is complete."""
        if self._call is None:
            return
        name, text = self._call, self._arguments
        self._call, self._arguments = None, ""
        if cut and not text.rstrip().endswith(("}", ">")):
            return
        calls = self._decode(name, text)
        for made, arguments in calls:
            events.append(ToolCall(new_call_id(), self._index, made, arguments))
            self._index += 1
        if not calls and not cut:
            events.append(Content(text))

    def _decode(self, name: str, text: str) -> Iterable[tuple[str, dict[str, object]]]:
        schemas = {name: {}, **self._schemas}
        if text.lstrip().startswith("<"):
            return decode_calls(text, schemas) or ()
        calls = decode_calls(f"{name} {text}" if text.strip() else name, schemas)
        return [(name, calls[0][1])] if calls else ()
