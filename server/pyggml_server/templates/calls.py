"""The parser that takes calls of tools out of a stream of text."""

import re
import secrets
import string
from typing import Final

from pyggml_server.templates.decoding import Calls, Schemas, decode_calls
from pyggml_server.templates.events import Content, Event
from pyggml_server.templates.formats import CallFormat
from pyggml_server.templates.json_scan import JsonScanner
from pyggml_server.templates.messages import ToolCall
from pyggml_server.templates.partial import held_suffix_of_any

__all__ = ["CallParser", "new_call_id"]

_ALPHABET: Final = string.ascii_lowercase + string.digits
_CALL_ENDS: Final = ("}", "]", ")", "</function>")
"""One of them ends a call that is complete but for its closing tag."""

_MAX_HEADER: Final = 256
"""Characters between a tag and the JSON; with more, it is no call."""


def new_call_id() -> str:
    """An id in Ollama's form."""
    return "call_" + "".join(secrets.choice(_ALPHABET) for _ in range(8))


class CallParser:
    """Separates calls from content.

    Text streams through until a tag may begin; a call comes out whole. What stands between tags but is no call comes
    out as content, unchanged. White space next to a call is left out.

    Args:
        format: The marks around calls.
        schemas: Of the arguments, by the tool's name.
    """

    def __init__(self, format: CallFormat, schemas: Schemas) -> None:
        self._format: Final = format
        self._schemas: Final = schemas
        self._skipped: Final = (*format.ignored, *format.wraps)
        tags = (*format.opens, *self._skipped)
        self._tags: Final = tags
        self._find: Final = re.compile("|".join(map(re.escape, tags)) if tags else "(?!)")
        # most pieces hold neither the first character of a tag nor white space at their end: those pass at once
        firsts = "".join(re.escape(first) for first in dict.fromkeys(tag[0] for tag in tags))
        self._suspect: Final = re.compile(f"[{firsts}]|\\s\\Z" if firsts else r"\s\Z")
        self._held = ""
        self._state = self._content
        self._quiet = True
        self._index = 0
        self._gap = ""
        self._tag = ""
        self._close = ""
        self._from = 0
        self._start = -1
        self._scanner = JsonScanner()

    def feed(self, text: str) -> list[Event]:
        """Events that are sure after one more piece."""
        if not self._held and not self._quiet and self._suspect.search(text) is None and text:
            return [Content(text)]
        events: list[Event] = []
        buffer: str | None = self._held + text
        self._held = ""
        # a state gives the text that the next one goes on with, or holds it and gives None
        while buffer is not None and buffer:
            buffer = self._state(buffer, events)
        return events

    def finish(self, *, cut: bool = False) -> list[Event]:
        """What was held back: a call without its end, or text that looked like the beginning of a tag.

        Args:
            cut: The answer was ended by a limit, not by the model: what may be a part of a call is withheld.
        """
        events: list[Event] = []
        held, self._held = self._held, ""
        if self._state == self._body:
            whole = not cut or held.rstrip().endswith(_CALL_ENDS)
            calls = decode_calls(self._inner(held), self._schemas) if whole else None
            if calls and self._known(calls):
                self._emit(calls, events)
            elif not cut or not (self._tag or self._names_a_tool(held)):
                self._text(self._gap + self._tag + held, events)
        elif (held.strip() or not self._index) and not (cut and len(held.strip()) > 1):
            self._text(held, events)
        self._state = self._content
        return events

    def _names_a_tool(self, text: str) -> bool:
        return any(f'"{name}"' in text for name in self._schemas)

    def _content(self, buffer: str, events: list[Event]) -> str | None:
        if self._quiet and self._format.bare and not self._index:
            bare = self._maybe_bare(buffer)
            if bare is None:
                self._held = buffer
                return None
            if bare:
                text = buffer.lstrip()
                return self._begin("", "", text, gap=buffer[: len(buffer) - len(text)])
        found = self._find.search(buffer)
        if found is None:
            keep = held_suffix_of_any(buffer, self._tags)
            text = buffer[: len(buffer) - keep].rstrip()
            self._text(text, events)
            self._held = buffer[len(text) :]
            return None
        before, tag, rest = buffer[: found.start()], found.group(), buffer[found.end() :]
        if tag in self._skipped:
            self._text(before if before.strip() or not self._quiet else "", events)
            return rest
        text = before.rstrip()
        self._text(text, events)
        close = self._format.closes[self._format.opens.index(tag)]
        return self._begin(tag, close, rest, gap=before[len(text) :])

    def _maybe_bare(self, buffer: str) -> bool | None:
        """Whether the answer begins with an object, or a list of them; None: too early to tell."""
        text = buffer.lstrip()
        if not text:
            return None
        if text[0] != "[":
            return text[0] == "{"
        inner = text[1:].lstrip()
        return inner[0] == "{" if inner else None

    def _begin(self, tag: str, close: str, rest: str, *, gap: str) -> str | None:
        """Go on with what may be a call, after white space that is left out if it is one."""
        self._gap, self._tag, self._close, self._from, self._start = gap, tag, close, 0, -1
        self._scanner = JsonScanner()
        # no text passes by the states from here on
        self._quiet = True
        self._state = self._body
        return rest or None

    def _body(self, buffer: str, events: list[Event]) -> str | None:
        return self._until_close(buffer, events) if self._close else self._until_balanced(buffer, events)

    def _until_close(self, buffer: str, events: list[Event]) -> str | None:
        while True:
            at = buffer.find(self._close, self._from)
            if at < 0:
                self._from = max(self._from, len(buffer) - len(self._close) + 1)
                self._held = buffer
                return None
            end = at + len(self._close)
            calls = decode_calls(self._inner(buffer[:at], self._close), self._schemas)
            if calls:
                self._emit(calls, events)
                self._state = self._after
                return buffer[end:]
            if not _inside_json(buffer[:at]):
                return self._reject(buffer, end, events)
            # the tag stands in a string of the arguments
            self._from = end

    def _inner(self, text: str, close: str = "") -> str:
        """What to decode: with the tags, if the name of the tool stands in them."""
        return f"{self._tag}{text}{close}" if self._tag.endswith("=") else text

    def _until_balanced(self, buffer: str, events: list[Event]) -> str | None:
        if self._start < 0:
            found = re.search(r"\{" if buffer.lstrip()[:1] not in ("[", "") else r"[\[{]", buffer)
            limit = len(buffer) if found is None else found.start()
            if limit > _MAX_HEADER:
                return self._reject(buffer, 0, events)
            if found is None:
                self._held = buffer
                return None
            self._start = found.start()
        end = self._scanner.end(buffer[self._start :])
        if end < 0:
            self._held = buffer
            return None
        end += self._start
        calls = decode_calls(buffer[:end], self._schemas)
        if not calls or not self._known(calls):
            return self._reject(buffer, end, events)
        self._emit(calls, events)
        self._state = self._after
        return buffer[end:]

    def _known(self, calls: Calls) -> bool:
        """Without a tag, only the name tells a call from JSON that was asked for."""
        return bool(self._tag) or all(name in self._schemas for name, _ in calls)

    def _reject(self, buffer: str, end: int, events: list[Event]) -> str:
        """It was no call: its text is content."""
        self._text(self._gap + self._tag + buffer[:end], events)
        self._quiet = False
        self._state = self._content
        return buffer[end:]

    def _after(self, buffer: str, events: list[Event]) -> str | None:
        text = buffer.lstrip()
        if not self._close:
            # more calls may follow without a tag of their own
            follows = text.lstrip(";, \n")
            if follows.startswith("{"):
                return self._begin("", "", follows, gap=buffer[: len(buffer) - len(follows)])
            if not follows:
                self._held = buffer
                return None
        if not text:
            self._held = buffer
            return None
        stray = next((close for close in self._format.closes if close and text.startswith(close)), "")
        if stray:
            # some models close what they never opened
            return text[len(stray) :]
        if any(tag.startswith(text) and tag != text for tag in (*self._tags, *self._format.closes)):
            self._held = buffer
            return None
        self._state = self._content
        return text if text.startswith(self._tags) else buffer

    def _emit(self, calls: Calls, events: list[Event]) -> None:
        for name, arguments in calls:
            events.append(ToolCall(new_call_id(), self._index, name, arguments))
            self._index += 1
        self._quiet = True

    def _text(self, text: str, events: list[Event]) -> None:
        if text:
            events.append(Content(text))
            self._quiet = False


def _inside_json(text: str) -> bool:
    """Whether a text ends within an object."""
    start = text.find("{")
    return start >= 0 and JsonScanner().end(text[start:]) < 0
