"""How long the shortest text of each rule is, and that no rule demands too much."""

import math

from pyggml.errors import GrammarError

from .nodes import Alt, Chars, Node, Ref, Repeat, Seq

__all__ = ["check_shortest"]


def check_shortest(rules: dict[str, Node], *, limit: int) -> None:
    """
    Raises:
        GrammarError: a part of a rule has no text of at most ``limit`` characters, or no text at all.
    """
    known: dict[str, float] = dict.fromkeys(rules, math.inf)
    changed = True
    while changed:
        changed = False
        for name, node in reversed(rules.items()):  # rules mostly come before those that they use
            if (n := _length(node, known)) < known[name]:
                known[name] = n
                changed = True
    if endless := [name for name, n in known.items() if math.isinf(n)]:
        raise GrammarError(f"the rule {endless[0]} of the GBNF grammar never ends")
    for name, n in known.items():
        if max(n, _longest_part(rules[name], known)) > limit:
            raise GrammarError(f"the rule {name} of the GBNF grammar demands more than {limit} characters")


def _length(node: Node, known: dict[str, float]) -> float:
    match node:
        case Chars():
            return 1
        case Ref(name):
            return known[name]
        case Seq(items):
            return sum(_length(item, known) for item in items)
        case Alt(items):
            return min(_length(item, known) for item in items)
        case Repeat(item, least, _):
            return least * _length(item, known) if least else 0
    return 1


def _longest_part(node: Node, known: dict[str, float]) -> float:
    """The longest that any alternative or repetition inside, taken once, demands."""
    match node:
        case Seq(items) | Alt(items):
            return max([_length(node, known), *(_longest_part(item, known) for item in items)])
        case Repeat(item, _, _):
            return max(_length(node, known), _longest_part(item, known))
    return _length(node, known)
