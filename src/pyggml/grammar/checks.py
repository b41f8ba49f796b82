"""Limits that are checked before llguidance sees a grammar."""

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation

from pyggml.errors import GrammarError

from .limits import GrammarLimits
from .shortest import shortest_text

__all__ = ["check_regex", "check_schema", "need"]


def need(n: int, limit: int, what: str) -> None:
    """
    Raises:
        GrammarError: ``n`` is over the limit.
    """
    if n > limit:
        raise GrammarError(f"{n} {what}: more than {limit} are not allowed")


def check_regex(pattern: str, limits: GrammarLimits) -> None:
    """
    Raises:
        GrammarError: the expression is too long, or what it matches is.
    """
    need(len(pattern), limits.pattern_chars, "characters in a regular expression")
    need(shortest_text(pattern), limits.forced_chars, "characters in the shortest text of a regular expression")


def check_schema(schema: object, limits: GrammarLimits) -> None:
    """
    Raises:
        GrammarError: a JSON schema is over one of the limits.
    """
    refs: set[str] = set()
    patterns: list[str] = []
    multiples = 0
    for key, value in _members(schema):
        if key == "$ref" and isinstance(value, str):
            refs.add(value)
        elif key == "pattern" and isinstance(value, str):
            patterns.append(value)
        elif key == "patternProperties" and isinstance(value, dict):
            patterns += value
        elif key == "properties" and isinstance(value, dict):
            need(len(value), limits.properties, "properties in one object of the JSON schema")
        elif key in ("const", "enum"):
            need(_longest(value), limits.forced_chars, f"characters in one {key} of the JSON schema")
        elif key == "multipleOf":
            multiples += _digits(value)
    need(len(refs), limits.rules, "different references in the JSON schema")
    need(sum(map(len, patterns)), limits.pattern_chars, "characters in the patterns of the JSON schema")
    for pattern in patterns:
        check_regex(pattern, limits)
    need(multiples, limits.multiples, "in the sum of multipleOf in the JSON schema")


def _members(schema: object) -> Iterator[tuple[str, object]]:
    """Every key with its value, at any depth."""
    todo = [schema]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            yield from value.items()
            todo.extend(value.values())
        elif isinstance(value, list):
            todo.extend(value)


def _longest(value: object) -> int:
    """The longest string inside."""
    longest, todo = 0, [value]
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            longest = max(longest, len(value))
        elif isinstance(value, dict):
            todo += [*value, *value.values()]
        elif isinstance(value, list):
            todo += value
    return longest


def _digits(value: object) -> int:
    """The number without its decimal point, which is what counts: 0.05 is 5."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    try:
        parts = Decimal(str(value)).normalize().as_tuple()
        if not isinstance(parts.exponent, int) or parts.exponent > 18:
            return 10**18
        return int("".join(map(str, parts.digits)) + "0" * parts.exponent)
    except (InvalidOperation, ValueError):
        return 0
