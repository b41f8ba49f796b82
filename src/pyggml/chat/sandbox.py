"""A Jinja environment for templates from files that nobody has read: no harm, no endless loops, no floods.

What it renders, it renders as transformers does (same options, extensions, globals), with two freedoms more:
``list.append`` and ``list.pop``, which published templates use. The lists are copies.
"""

import operator
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from types import MappingProxyType
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateRuntimeError
from jinja2.ext import loopcontrols
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pyggml.chat.budget import Budget, BudgetError
from pyggml.chat.codegen import GenerationTag, GuardedCodeGenerator, add_ticks
from pyggml.chat.filters import DROPPED_FILTERS, check_format, guard_filters, guard_tests, replaced_length

__all__ = ["TemplateRaised", "TemplateSandbox"]

_MAX_BITS = 4096
_MAX_TUPLE = 1000

_STRING_METHODS = frozenset(
    ("capitalize", "casefold", "center", "count", "encode", "endswith", "expandtabs", "find", "format", "format_map")
    + ("index", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric")
    + ("isprintable", "isspace", "istitle", "isupper", "join", "ljust", "lower", "lstrip", "partition")
    + ("removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition", "rsplit", "rstrip")
    + ("split", "splitlines", "startswith", "strip", "swapcase", "title", "upper", "zfill")
)
_METHODS: tuple[tuple[type, frozenset[str]], ...] = (
    (str, _STRING_METHODS),
    (list, frozenset(("append", "copy", "count", "index", "pop"))),
    (tuple, frozenset(("count", "index"))),
    (dict, frozenset(("copy", "get", "items", "keys", "values"))),
    (bytes, frozenset()),
    (int, frozenset()),
    (float, frozenset(("is_integer",))),
)
_PADDING = frozenset(("center", "ljust", "rjust", "zfill"))

_COMPARISONS: MappingProxyType[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {
        "==": operator.eq,
        "!=": operator.ne,
        ">": operator.gt,
        ">=": operator.ge,
        "<": operator.lt,
        "<=": operator.le,
        "in": lambda left, right: left in right,
        "not in": lambda left, right: left not in right,
    }
)


class TemplateRaised(TemplateRuntimeError):
    """The template called ``raise_exception``."""


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """One per template. Renderings in several threads have a budget each."""

    code_generator_class = GuardedCodeGenerator
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, clock: Callable[[], datetime]) -> None:
        # Constants are not computed while compiling, when no budget is set.
        extensions = [GenerationTag, loopcontrols]
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=extensions)
        self._active = threading.local()
        self.filters.update(guard_filters(self.filters, self._budget))
        for name in DROPPED_FILTERS:
            del self.filters[name]
        self.tests.update(guard_tests(self.tests, self._budget))
        self.finalize = self._finalize
        del self.globals["lipsum"]
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = lambda format: _format_time(clock(), format)

    @contextmanager
    def within(self, budget: Budget) -> Iterator[None]:
        """Renderings of this thread use ``budget``."""
        self._active.budget = budget
        try:
            yield
        finally:
            del self._active.budget

    def _budget(self) -> Budget:
        budget: Budget = self._active.budget
        return budget

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return add_ticks(super()._parse(source, name, filename))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Of built-in types, only methods that are known to be harmless."""
        if isinstance(obj, tuple) and attr in getattr(type(obj), "_fields", ()):
            return True  # what groupby gives
        for kind, methods in _METHODS:
            if isinstance(obj, kind):
                return attr in methods
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """``str.format``, sandboxed by Jinja, with a look at the length first."""
        sandboxed = super().wrap_str_format(value)
        if sandboxed is None:
            return None
        template: str = value.__self__

        def guarded(*args: Any, **kwargs: Any) -> str:
            check_format(self._budget(), template, *args, *kwargs.values())
            return sandboxed(*args, **kwargs)

        return guarded

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Every call that a template makes."""
        budget = self._budget()
        budget.step()
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            args = _check_string_method(budget, obj.__name__, owner, args)
        elif isinstance(owner, list | tuple) and obj.__name__ in ("count", "index"):
            budget.measure(owner, *args)
        elif obj is dict or isinstance(owner, dict | LoopContext):
            budget.measure(*args)
        result = super().call(context, obj, *args, **kwargs)
        budget.charge(result)
        return result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """``+``, ``*``, ``**`` and ``%``."""
        budget = self._budget()
        budget.step()
        if operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
            budget.check_length(len(left) + len(right))
        elif operator == "*":
            _check_product(budget, left, right)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() * abs(right))
        elif operator == "%" and isinstance(left, str):
            check_format(budget, left, right)
        result = super().call_binop(context, operator, left, right)
        budget.charge(result)
        return result

    def getitem(self, obj: Any, argument: Any) -> Any:
        """``obj[argument]``, which hashes the argument."""
        if not isinstance(argument, str | int):
            self._budget().measure(argument)
        return super().getitem(obj, argument)

    def guarded_pass(self) -> bool:
        """One pass of a loop: the call that leads here has counted it."""
        return True

    def guarded_concat(self, *values: Any) -> str:
        """``a ~ b``"""
        return self.concat([self._text(value) for value in values])

    def guarded_compare(self, first: Any, *operations: tuple[str, Any]) -> Any:
        """``a < b``, and chains of it."""
        budget = self._budget()
        left, result = first, True
        for name, right in operations:
            if not isinstance(left, str) or not isinstance(right, str | dict):
                budget.measure(left, right)
            result = _COMPARISONS[name](left, right)
            if not result:
                break
            left = right
        return result

    def guarded_slice(self, obj: Any, start: Any, stop: Any, step: Any) -> Any:
        """``obj[start:stop:step]``"""
        budget = self._budget()
        budget.step()
        result = obj[start:stop:step]
        budget.charge(result)
        return result

    def guarded_tuple(self, *items: Any) -> tuple[Any, ...]:
        """``(a, b)``; small, because hashing it looks at all of it each time."""
        _check_key(self._budget(), items)
        return items

    def guarded_dict(self, *parts: Any) -> dict[Any, Any]:
        """``{a: b, c: d}`` from a, b, c, d."""
        budget = self._budget()
        keys = parts[::2]
        for key in keys:
            _check_key(budget, key)
        result = dict(zip(keys, parts[1::2], strict=True))
        budget.charge(result)
        return result

    def concat(self, parts: Iterable[str]) -> str:
        """Joins what a macro or block printed."""
        budget = self._budget()
        pieces = list(parts)
        budget.check_length(sum(map(len, pieces)))
        result = "".join(pieces)
        budget.charge(result)
        return result

    @pass_context  # unlike a plain function, not called on constants while compiling
    def _finalize(self, context: Context, value: Any) -> str:
        """What ``{{ value }}`` prints."""
        return self._text(value)

    def _text(self, value: Any) -> str:
        if not isinstance(value, str):
            self._budget().measure(value)
            value = str(value)
            self._budget().charge(value)
        return str(value)


def _check_key(budget: Budget, key: Any) -> None:
    if isinstance(key, tuple) and budget.measure(*(item for item in key if isinstance(item, tuple))) > _MAX_TUPLE:
        raise BudgetError(f"the chat template nests tuples of more than {_MAX_TUPLE} elements")


def _check_product(budget: Budget, left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, str | list | tuple) and isinstance(times, int):
            budget.check_length(len(sequence) * max(times, 0))


def _check_bits(bits: int) -> None:
    if bits > _MAX_BITS:
        raise BudgetError(f"the chat template computes a number of more than {_MAX_BITS} bits")


def _check_string_method(budget: Budget, name: str, owner: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse a call whose result would be too long; the arguments, iterators among them as lists."""
    if name in _PADDING and args and isinstance(args[0], int):
        budget.check_length(args[0])
    elif name == "expandtabs":
        width = args[0] if args and isinstance(args[0], int) else 8
        budget.check_length(len(owner) + owner.count("\t") * max(width, 0))
    elif name == "replace" and len(args) >= 2 and isinstance(args[0], str) and isinstance(args[1], str):
        budget.check_length(replaced_length(owner, args[0], args[1]))
    elif name == "join" and args:
        parts = list(args[0])
        budget.check_length(budget.measure(parts) + len(parts) * len(owner))
        return (parts, *args[1:])
    return args


def _raise_exception(message: Any = "") -> None:
    raise TemplateRaised(str(message))


def _format_time(now: datetime, format: str) -> str:
    if len(format) > 256:
        raise SecurityError("strftime_now: the format is too long")
    return now.strftime(format)
