"""GBNF text to rules."""

import re
from string import hexdigits
from typing import NoReturn

from pyggml.errors import GrammarError

from .nodes import LAST, Alt, Chars, Node, Ref, Repeat, Seq, Token, invert, normalize

__all__ = ["parse"]

NAME = re.compile(r"[A-Za-z0-9_-]+")
SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
TOKEN = re.compile(r"<(?:\[[0-9]+\]|[^<>\s\[\]]+)>")
COUNT = re.compile(r"\{\s*([0-9]{1,9})\s*(,?)\s*([0-9]{0,9})\s*\}")
HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
SIMPLE = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}
DEPTH = 60
MOST = 2_000  # llama.cpp's bound for counted repetition


def parse(text: str, *, max_rules: int) -> dict[str, Node]:
    """The rules by name.

    Raises:
        GrammarError: the text is not GBNF; a rule is missing or defined twice; there is no ``root``; it has more than
            ``max_rules`` rules, or brackets deeper than 60.
    """
    return _Parser(text, max_rules=max_rules).parse()


class _Parser:
    def __init__(self, text: str, *, max_rules: int) -> None:
        self._text = text
        self._at = 0
        self._max_rules = max_rules
        self._depth = 0
        self._used: dict[str, int] = {}

    def parse(self) -> dict[str, Node]:
        rules: dict[str, Node] = {}
        self._skip(SPACE_AND_LINES)
        while self._at < len(self._text):
            begin = self._at
            name = self._name()
            if name in rules:
                self._fail(f"the rule {name} is defined twice", begin)
            rules[name] = self._rule()
            if len(rules) > self._max_rules:
                raise GrammarError(f"more than {self._max_rules} rules are not allowed in a GBNF grammar")
        for name, place in self._used.items():
            if name not in rules:
                self._fail(f"there is no rule {name}", place)
        if "root" not in rules:
            raise GrammarError("the GBNF grammar has no rule root, where it would begin")
        return rules

    def _rule(self) -> Node:
        self._skip(SPACE)
        if not self._text.startswith("::=", self._at):
            self._fail("expected ::=")
        self._at += 3
        self._skip(SPACE_AND_LINES)
        body = self._alternatives(nested=False)
        if self._at < len(self._text) and self._text[self._at] not in "\r\n":
            self._fail("expected the end of the line")
        self._skip(SPACE_AND_LINES)
        return body

    def _alternatives(self, *, nested: bool) -> Node:
        items = [self._sequence(nested=nested)]
        while self._text.startswith("|", self._at):
            self._at += 1
            self._skip(SPACE_AND_LINES)
            items.append(self._sequence(nested=nested))
        return items[0] if len(items) == 1 else Alt(tuple(items))

    def _sequence(self, *, nested: bool) -> Node:
        space = SPACE_AND_LINES if nested else SPACE
        items: list[Node] = []
        while (item := self._item()) is not None:
            self._skip(space)
            items.append(self._repeated(item, space))
        if self._at < len(self._text) and self._text[self._at] in "*+?{":
            self._fail("nothing to repeat")
        return items[0] if len(items) == 1 else Seq(tuple(items))

    def _item(self) -> Node | None:
        char = self._text[self._at : self._at + 1]
        if char == '"':
            return self._literal()
        if char == "[":
            return self._class()
        if char == "(":
            return self._group()
        if char == ".":
            self._at += 1
            return Chars(invert(()))
        if char in ("<", "!"):
            return self._token()
        if found := NAME.match(self._text, self._at):
            self._used.setdefault(found[0], self._at)
            self._at = found.end()
            return Ref(found[0])
        return None

    def _repeated(self, item: Node, space: re.Pattern[str]) -> Node:
        for n in range(DEPTH + 1):
            char = self._text[self._at : self._at + 1]
            if not char or char not in "*+?{":
                break
            if n == DEPTH:
                self._fail("this is repeated too often")
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(char) or self._count()
            self._at += char != "{"
            self._skip(space)
            item = Repeat(item, least, most)
        return item

    def _count(self) -> tuple[int, int | None]:
        found = COUNT.match(self._text, self._at)
        if found is None:
            self._fail("expected {n}, {n,} or {n,m}")
        least = int(found[1])
        most = int(found[3]) if found[3] else None if found[2] else least
        if max(least, most or 0) > MOST:
            self._fail(f"more than {MOST} repetitions are not allowed")
        if (most is not None and most < least) or (found[3] and not found[2]):
            self._fail("a repetition's bounds must ascend")
        self._at = found.end()
        return least, most

    def _group(self) -> Node:
        begin = self._at
        self._depth += 1
        if self._depth > DEPTH:
            self._fail(f"brackets are nested deeper than {DEPTH}")
        self._at += 1
        self._skip(SPACE_AND_LINES)
        inside = self._alternatives(nested=True)
        if not self._text.startswith(")", self._at):
            self._fail("this bracket is not closed", begin)
        self._at += 1
        self._depth -= 1
        return inside

    def _token(self) -> Node:
        if self._text.startswith("!", self._at):
            self._fail("all tokens but one (!<...>) is not supported")
        found = TOKEN.match(self._text, self._at)
        if found is None:
            self._fail("expected <name> or <[id]>")
        self._at = found.end()
        return Token(found[0])

    def _literal(self) -> Node:
        begin = self._at
        self._at += 1
        chars: list[Node] = []
        while (char := self._char(begin)) is not None:
            chars.append(Chars(((char, char),)) if normalize([(char, char)]) else self._fail("half a character"))
        return chars[0] if len(chars) == 1 else Seq(tuple(chars))

    def _class(self) -> Node:
        begin = self._at
        self._at += 1
        inverse = self._text.startswith("^", self._at)
        self._at += inverse
        ranges = []
        while (low := self._char(begin, closing="]")) is not None:
            high = low
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                high = self._char(begin, closing="") or 0
                if high < low:
                    self._fail("a range of characters must ascend")
            ranges.append((low, high))
        chars = invert(normalize(ranges)) if inverse else normalize(ranges)
        if not chars:
            self._fail("no character is in this class", begin)
        return Chars(chars)

    def _char(self, begin: int, *, closing: str = '"') -> int | None:
        """The next character of a literal or class; None at its end."""
        if self._at >= len(self._text):
            self._fail("this is not closed", begin)
        char = self._text[self._at]
        if char == closing:
            self._at += 1
            return None
        self._at += 1
        if char != "\\":
            return ord(char)
        kind = self._text[self._at : self._at + 1]
        self._at += 1
        if kind in SIMPLE:
            return ord(SIMPLE[kind])
        n = HEX_DIGITS.get(kind, 0)
        digits = self._text[self._at : self._at + n]
        if not n or len(digits) < n or not set(digits) <= set(hexdigits) or int(digits, 16) > LAST:
            self._fail(f"unknown escape \\{kind}{digits}", self._at - 2)
        self._at += n
        return int(digits, 16)

    def _name(self) -> str:
        found = NAME.match(self._text, self._at)
        if found is None:
            self._fail("expected the name of a rule")
        self._at = found.end()
        return found[0]

    def _skip(self, space: re.Pattern[str]) -> None:
        if found := space.match(self._text, self._at):
            self._at = found.end()

    def _fail(self, reason: str, at: int | None = None) -> NoReturn:
        at = self._at if at is None else at
        line = self._text.count("\n", 0, at) + 1
        column = at - (self._text.rfind("\n", 0, at) + 1) + 1
        raise GrammarError(
            f"the GBNF grammar is wrong at line {line} column {column}: {reason}", line=line, column=column
        )
