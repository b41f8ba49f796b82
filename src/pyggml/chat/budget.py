"""What one rendering may use: steps, memory, time, output."""

import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass

from jinja2.exceptions import SecurityError

__all__ = ["Budget", "BudgetError", "TemplateLimits"]

_CONTAINERS = (list, tuple, dict, Set, Mapping)
_MAX_DEPTH = 100
_STEPS_PER_CLOCK = 1024
# A list element costs a pointer, a character usually one byte.
_UNITS_PER_ELEMENT = 8


@dataclass(frozen=True, kw_only=True)
class TemplateLimits:
    """Limits that keep a template from an untrusted file within bounds."""

    source: int = 256 * 1024
    """Characters of the template."""
    output: int = 16 * 1024 * 1024
    """Characters of the result, and of any string on the way."""
    steps: int = 3_000_000
    """Loop passes, calls, operations and compared elements, about a microsecond each."""
    memory: int = 64 * 1024 * 1024
    """Characters and 8-byte elements made on the way; the conversation's own size is added 64 times."""
    seconds: float = 10.0
    """Time, looked at now and then while rendering."""


class BudgetError(SecurityError):
    """The template went beyond a limit."""


class Budget:
    """Counts down what is left of :class:`TemplateLimits` during one rendering."""

    def __init__(
        self, limits: TemplateLimits, *, input_size: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits
        self._steps = limits.steps
        self._memory = limits.memory + 64 * input_size
        self._clock = clock
        self._deadline = clock() + limits.seconds
        self._until_clock = _STEPS_PER_CLOCK

    def step(self, n: int = 1) -> None:
        """Count ``n`` steps.

        Raises:
            BudgetError: no steps or no time are left.
        """
        self._steps -= n
        if self._steps < 0:
            raise BudgetError(f"the chat template takes more than {self._limits.steps} steps")
        self._until_clock -= n
        if self._until_clock < 0:
            self._until_clock = _STEPS_PER_CLOCK
            if self._clock() > self._deadline:
                raise BudgetError(f"the chat template takes more than {self._limits.seconds} seconds")

    def check_length(self, n: int) -> None:
        """Refuse a string or list of ``n`` elements before it is made.

        Raises:
            BudgetError: it would be too long.
        """
        if n > self._limits.output:
            raise BudgetError(f"the chat template makes a text or list longer than {self._limits.output}")

    def charge(self, value: object) -> None:
        """Count the memory of a value that was just made.

        Raises:
            BudgetError: too much memory was used in all.
        """
        if isinstance(value, str):
            self._memory -= len(value)
            self.check_length(len(value))
        elif isinstance(value, list | tuple | dict):
            self._memory -= len(value) * _UNITS_PER_ELEMENT
            self.check_length(len(value))
        if self._memory < 0:
            raise BudgetError("the chat template uses too much memory")

    def measure(self, *values: object) -> int:
        """Number of characters and elements in ``values``, with everything in them, as often as it is there.

        Comparing, printing or hashing nested values takes time in this number, which for a list that holds
        another list twice, that one twice, ... is exponential in the size in memory. Every element is a step.

        Raises:
            BudgetError: it is too large, or nested too deeply.
        """
        size = 0
        pending: list[tuple[object, int]] = [(value, 0) for value in values]
        while pending:
            value, depth = pending.pop()
            if isinstance(value, str):
                size += len(value)
            elif isinstance(value, _CONTAINERS):
                if depth > _MAX_DEPTH:
                    raise BudgetError(f"the chat template nests values more than {_MAX_DEPTH} deep")
                self.step(len(value) + 1)
                inner = depth + 1
                pending.extend((element, inner) for element in value)
                if isinstance(value, Mapping):
                    pending.extend((element, inner) for element in value.values())
            size += 1
        return size
