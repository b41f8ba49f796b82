"""The parts of a grammar."""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Alt", "Chars", "Lexeme", "Node", "Ref", "Repeat", "Seq", "Token", "invert", "normalize"]

LAST = 0x10FFFF
# Halves of UTF-16, which no UTF-8 text contains.
SURROGATES = (0xD800, 0xDFFF)

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Chars:
    """One character out of inclusive ranges of code points, which ascend and do not touch."""

    ranges: Ranges


@dataclass(frozen=True)
class Ref:
    """A rule."""

    name: str


@dataclass(frozen=True)
class Token:
    """A special token, as ``<name>`` or ``<[id]>``."""

    text: str


@dataclass(frozen=True)
class Seq:
    """One after the other; empty: nothing."""

    items: "tuple[Node, ...]"


@dataclass(frozen=True)
class Alt:
    """One of several."""

    items: "tuple[Node, ...]"


@dataclass(frozen=True)
class Repeat:
    """``least`` to ``most`` times; None: any number."""

    item: "Node"
    least: int
    most: int | None


@dataclass(frozen=True)
class Lexeme:
    """What the lexer takes in one piece: ``item`` has no rules and no tokens inside."""

    item: "Node"


Node = Chars | Ref | Token | Seq | Alt | Repeat | Lexeme


def normalize(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Sort and join ranges, without the surrogates."""
    parts: list[tuple[int, int]] = []
    for low, high in ranges:
        parts += [(low, min(high, SURROGATES[0] - 1)), (max(low, SURROGATES[1] + 1), high)]
    out: list[tuple[int, int]] = []
    for low, high in sorted(part for part in parts if part[0] <= part[1]):
        if out and low <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(high, out[-1][1]))
        else:
            out.append((low, high))
    return tuple(out)


def invert(ranges: Ranges) -> Ranges:
    """All other characters."""
    out, begin = [], 0
    for low, high in ranges:
        out.append((begin, low - 1))
        begin = high + 1
    return normalize([*out, (begin, LAST)])
