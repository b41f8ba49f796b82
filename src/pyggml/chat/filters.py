"""Jinja's filters and tests, each within the budget of the rendering."""

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sized
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, pass_environment
from jinja2.exceptions import FilterArgumentError
from jinja2.filters import make_attrgetter

from pyggml.chat.budget import Budget, BudgetError

__all__ = ["DROPPED_FILTERS", "check_format", "guard_filters", "guard_tests", "replaced_length"]

_Function = Callable[..., Any]

# Not used by chat templates, and slow or endless on hostile input.
DROPPED_FILTERS = ("pprint", "random", "urlize", "wordwrap")
# Take time in the number of elements at most, whatever these hold.
_SHALLOW = frozenset(
    ("attr", "count", "d", "default", "first", "items", "last", "length", "list", "map", "reject", "rejectattr")
    + ("reverse", "select", "selectattr")
)
_MAX_COUNT = 100_000
_MAX_INDENT = 64
_WIDE_FORMAT = re.compile(r"\d{5}|\*|\{[^{}]*\{")


def guard_filters(filters: Mapping[str, Any], budget: Callable[[], Budget]) -> dict[str, _Function]:
    """Jinja's ``filters`` with checks, and ``tojson`` as transformers defines it.

    Args:
        filters: what to wrap.
        budget: gives the budget of the rendering that runs in the calling thread.
    """
    own: dict[str, _Function] = {"tojson": _to_json, "sum": _sum}
    return {
        name: _guard(own.get(name, function), budget, deep=name not in _SHALLOW, check=_CHECKS.get(name), collect=True)
        for name, function in filters.items()
        if name not in DROPPED_FILTERS
    }


def guard_tests(tests: Mapping[str, Any], budget: Callable[[], Budget]) -> dict[str, _Function]:
    """Jinja's ``tests``; those that compare look at the size of what they compare first."""
    shallow = ("defined", "undefined", "none", "mapping", "sequence", "iterable", "string", "sameas", "callable")
    return {
        name: _guard(function, budget, deep=name not in shallow, check=None, collect=False)
        for name, function in tests.items()
    }


def check_format(budget: Budget, template: str, *values: object) -> None:
    """Refuse formatting whose result may be too long: by a width, or by repeating large values.

    Raises:
        BudgetError: it may.
    """
    if _WIDE_FORMAT.search(template):
        raise BudgetError("the chat template formats with a width of five digits or a computed one")
    fields = template.count("%") + template.count("{")
    budget.check_length(len(template) + fields * (budget.measure(*values) + 9999))


def replaced_length(text: str, old: str, new: str) -> int:
    """Length of ``text.replace(old, new)`` at most."""
    return len(text) + max(0, len(new) - len(old)) * text.count(old)


def _guard(
    function: _Function, budget: Callable[[], Budget], *, deep: bool, check: _Function | None, collect: bool
) -> _Function:
    # Jinja passes a context or environment first where a filter asks for it by this attribute.
    at = 1 if getattr(function, "jinja_pass_arg", None) is not None else 0

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        current = budget()
        current.step()
        values = [_collect(value, current) for value in args[at:]] if collect else list(args[at:])
        if deep:
            current.measure(*values, *kwargs.values())
        if check is not None:
            check(current, *values, **kwargs)
        result = function(*args[:at], *values, **kwargs)
        current.charge(result)
        return result

    return guarded


def _collect(value: Any, budget: Budget) -> Any:
    """Iterators as lists, each element a step: what cannot be looked at twice cannot be measured."""
    if not isinstance(value, Iterator):
        return value
    elements = []
    for element in value:
        budget.step()
        elements.append(element)
    budget.charge(elements)
    return elements


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON without escapes for HTML or for what is not ASCII, as in transformers."""
    if (isinstance(indent, int) and indent > _MAX_INDENT) or (isinstance(indent, str) and len(indent) > _MAX_INDENT):
        raise FilterArgumentError(f"tojson: indent must not exceed {_MAX_INDENT}")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@pass_environment
def _sum(environment: Environment, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    """Numbers only: adding up lists takes time in the square of their number."""
    numbers = list(value) if attribute is None else list(map(make_attrgetter(environment, attribute), value))
    if not all(isinstance(number, int | float) for number in (*numbers, start)):
        raise FilterArgumentError("sum: only numbers can be added up")
    return sum(numbers, start)


def _check_count(budget: Budget, value: Any, count: Any = 0, *_: Any, **kwargs: Any) -> None:
    numbers = [number for number in (count, *kwargs.values()) if isinstance(number, int)]
    if any(abs(number) > _MAX_COUNT for number in numbers):
        raise BudgetError(f"the chat template asks for more than {_MAX_COUNT} parts or columns")


def _check_precision(budget: Budget, value: Any, precision: Any = 0, *_: Any, **__: Any) -> None:
    if isinstance(precision, int) and abs(precision) > 100:
        raise BudgetError("the chat template rounds to more than 100 digits")


def _check_indent(budget: Budget, value: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    size = len(width) if isinstance(width, str) else int(width)
    text = str(value)
    budget.check_length(len(text) + (len(text.splitlines()) + 1) * size)


def _check_join(budget: Budget, value: Any, d: Any = "", *_: Any, **__: Any) -> None:
    n = len(value) if isinstance(value, Sized) else 0
    budget.check_length(budget.measure(value) + n * len(str(d)))


def _check_replace(budget: Budget, value: Any, old: Any, new: Any, *_: Any, **__: Any) -> None:
    budget.check_length(replaced_length(str(value), str(old), str(new)))


def _check_format(budget: Budget, value: Any, *args: Any, **kwargs: Any) -> None:
    check_format(budget, str(value), *args, *kwargs.values())


_CHECKS: MappingProxyType[str, Callable[..., None]] = MappingProxyType(
    {
        "batch": _check_count,
        "center": _check_count,
        "format": _check_format,
        "indent": _check_indent,
        "join": _check_join,
        "replace": _check_replace,
        "round": _check_precision,
        "slice": _check_count,
    }
)
