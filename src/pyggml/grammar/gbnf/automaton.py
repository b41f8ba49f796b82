"""Lexemes as automata of positions (Glushkov 1961), to ask how far one can run over the end of another.

Sets of positions and of character classes are bits of an int.
"""

from dataclasses import dataclass
from functools import reduce
from operator import or_

from .nodes import Alt, Chars, Node, Repeat, Seq

__all__ = ["Alphabet", "Automaton", "TooLargeError", "bits"]

POSITIONS = 2_000


class TooLargeError(Exception):
    """An automaton or a comparison of two is larger than is worth it."""


def bits(mask: int) -> list[int]:
    """The numbers of the bits that are set."""
    out = []
    while mask:
        low = mask & -mask
        out.append(low.bit_length() - 1)
        mask ^= low
    return out


class Alphabet:
    """All characters, divided so finely that every class of the grammar is a union of parts."""

    def __init__(self, used: set[Chars]) -> None:
        cuts = {0, 0x80}
        for chars in used:
            for low, high in chars.ranges:
                cuts |= {low, high + 1}
        self._cuts = sorted(cuts)
        # Two characters beyond ASCII may share their first bytes, so the lexer can take one for the other at first.
        self.foreign = sum(1 << i for i, cut in enumerate(self._cuts) if cut >= 0x80)
        self._known: dict[Chars, int] = {}

    def mask(self, chars: Chars) -> int:
        """The parts that ``chars`` consists of."""
        if chars not in self._known:
            parts = (
                1 << i for i, cut in enumerate(self._cuts) if any(low <= cut <= high for low, high in chars.ranges)
            )
            self._known[chars] = reduce(or_, parts, 0)
        return self._known[chars]


@dataclass
class _Part:
    nullable: bool
    first: int
    last: int


class Automaton:
    """The texts of one lexeme. Its state is the set of positions that may read the next character."""

    def __init__(self, node: Node, alphabet: Alphabet) -> None:
        """
        Raises:
            TooLargeError: more than 2,000 positions.
        """
        self._alphabet = alphabet
        self._masks: list[int] = []
        self._follow: list[int] = []
        whole = self._build(node)
        self.nullable, self.start, self._last = whole.nullable, whole.first, whole.last
        self._readers: dict[int, int] = {}
        for position, mask in enumerate(self._masks):
            for part in bits(mask):
                self._readers[part] = self._readers.get(part, 0) | 1 << position
        self._steps: dict[tuple[int, int], tuple[int, bool]] = {}
        self._next: dict[int, int] = {}

    def next_chars(self, state: int) -> int:
        """The parts of the alphabet that may come next."""
        if state not in self._next:
            self._next[state] = reduce(or_, (self._masks[position] for position in bits(state)), 0)
        return self._next[state]

    def step(self, state: int, part: int) -> tuple[int, bool]:
        """Read a character: the next state, and whether the text may end there."""
        key = (state, part)
        if key not in self._steps:
            read = state & self._readers.get(part, 0)
            after = reduce(or_, (self._follow[position] for position in bits(read)), 0)
            self._steps[key] = after, bool(read & self._last)
        return self._steps[key]

    def _build(self, node: Node) -> _Part:
        match node:
            case Chars():
                if len(self._masks) >= POSITIONS:
                    raise TooLargeError
                self._masks.append(self._alphabet.mask(node))
                self._follow.append(0)
                here = 1 << len(self._masks) - 1
                return _Part(False, here, here)
            case Alt(items):
                parts = [self._build(item) for item in items]
                return _Part(
                    any(part.nullable for part in parts),
                    reduce(or_, (part.first for part in parts), 0),
                    reduce(or_, (part.last for part in parts), 0),
                )
            case Seq(items):
                whole = _Part(True, 0, 0)
                for item in items:
                    whole = self._join(whole, self._build(item))
                return whole
            case Repeat(item, least, most):
                return self._repeat(item, least, most)
        raise TypeError(f"{node} is not regular")

    def _join(self, left: _Part, right: _Part) -> _Part:
        for position in bits(left.last):
            self._follow[position] |= right.first
        return _Part(
            left.nullable and right.nullable,
            left.first | right.first if left.nullable else left.first,
            left.last | right.last if right.nullable else right.last,
        )

    def _repeat(self, item: Node, least: int, most: int | None) -> _Part:
        whole = _Part(True, 0, 0)
        for n in range(max(least, 1) if most is None else most):
            part = self._build(item)
            part.nullable |= n >= least
            if most is None and n == max(least, 1) - 1:
                for position in bits(part.last):
                    self._follow[position] |= part.first
            whole = self._join(whole, part)
        return whole
