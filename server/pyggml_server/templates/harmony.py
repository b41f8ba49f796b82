"""The parser for answers made of channels, in the format "harmony" of gpt-oss."""

import re
from typing import Final

from pyggml_server.templates.calls import new_call_id
from pyggml_server.templates.decoding import decode_calls
from pyggml_server.templates.events import Content, Event, Thinking
from pyggml_server.templates.messages import ToolCall
from pyggml_server.templates.partial import held_suffix_of_any

__all__ = ["HarmonyParser"]

_HEADER_END: Final = "<|message|>"
_ENDS: Final = ("<|end|>", "<|call|>", "<|return|>", "<|start|>", "<|channel|>")
_END: Final = re.compile("|".join(map(re.escape, _ENDS)))
_RECIPIENT: Final = re.compile(r"to=(?:functions\.)?([\w.\-]+)")
_CHANNEL: Final = re.compile(r"<\|channel\|>\s*(\w+)")


class HarmonyParser:
    """Thoughts are in the channel ``analysis``, calls are addressed to ``functions.…``, the rest is content.

    Args:
        in_header: The answer begins with the header of a message, as after ``<|start|>assistant``; else with content.
    """

    def __init__(self, *, in_header: bool) -> None:
        self._held = ""
        self._header: str | None = "" if in_header else None
        self._thinking = False
        self._call: str | None = None
        self._arguments = ""
        self._index = 0

    def feed(self, text: str) -> list[Event]:
        """Events that are sure after one more piece."""
        if not self._held and self._header is None and self._call is None and "<" not in text and text:
            return [Thinking(text) if self._thinking else Content(text)]
        events: list[Event] = []
        self._held += text
        while self._held and (self._read_header() if self._header is not None else self._read_body(events)):
            pass
        return events

    def finish(self, *, cut: bool = False) -> list[Event]:
        """What was held back.

        Args:
            cut: The answer was ended by a limit, not by the model: a call that is not complete is withheld.
        """
        events: list[Event] = []
        held, self._held = self._held, ""
        if self._header is not None:
            # a header that never ended: plain text, unless it consists of the format's own words
            if held and "<|" not in held and not _RECIPIENT.search(held):
                events.append(Content(held))
            return events
        self._write(held, events)
        self._close(events, cut=cut)
        return events

    def _read_header(self) -> bool:
        at = self._held.find(_HEADER_END)
        if at < 0:
            return False
        header, self._held = self._held[:at], self._held[at + len(_HEADER_END) :]
        channel = _CHANNEL.search(header)
        recipient = _RECIPIENT.search(header)
        self._thinking = channel is not None and channel[1] == "analysis" and recipient is None
        self._call = recipient[1] if recipient is not None else None
        self._arguments = ""
        self._header = None
        return True

    def _read_body(self, events: list[Event]) -> bool:
        found = _END.search(self._held)
        if found is None:
            keep = held_suffix_of_any(self._held, _ENDS)
            text = self._held[: len(self._held) - keep]
            self._held = self._held[len(text) :]
            self._write(text, events)
            return False
        self._write(self._held[: found.start()], events)
        self._close(events)
        # the next message's header may begin with the tag that ended this one
        self._held = self._held[found.start() if found.group() == "<|channel|>" else found.end() :]
        self._header = ""
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
        if cut and not text.rstrip().endswith("}"):
            return
        calls = decode_calls(f"{name} {text}" if text.strip() else name, {name: {}})
        if calls:
            events.append(ToolCall(new_call_id(), self._index, name, calls[0][1]))
            self._index += 1
        elif not cut:
            events.append(Content(text))
