"""Lengths of time as Go and Ollama write them, and how long a model stays."""

import math
import re
from dataclasses import dataclass
from typing import Final, Self

from pyggml_server.errors import BadRequestError

__all__ = ["KeepAlive", "format_duration", "parse_duration"]

_UNITS: Final = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_LONGEST: Final = 2**63 - 1
"""Nanoseconds of the longest duration that Go can hold, 292 years."""


def parse_duration(text: str) -> float:
    """A duration in Go's grammar in seconds: ``1h30m``, ``-1.5s``, ``300ms``, ``0``.

    Raises:
        ValueError: the text is no duration, or one of more than 292 years.
    """
    sign = -1 if text.startswith("-") else 1
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0.0
    total, at = 0.0, 0
    while at < len(rest):
        part = _PART.match(rest, at)
        if part is None:
            break
        total += float(part[1]) * _UNITS[part[2]]
        at = part.end()
    if at < len(rest) or not rest:
        raise ValueError(f"{text!r} is not a duration such as 5m, 1h30m or 300ms")
    if total > _LONGEST:
        raise ValueError(f"{text!r} is longer than 292 years")
    return sign * total / 10**9


def format_duration(seconds: float) -> str:
    """Seconds as Go prints a duration: ``1h30m0s``, ``1.5s``, ``300ms``."""
    nanoseconds = round(abs(seconds) * 10**9)
    sign = "-" if seconds < 0 and nanoseconds else ""
    if nanoseconds == 0:
        return "0s"
    if nanoseconds < 10**9:
        unit = "ms" if nanoseconds >= 10**6 else "µs" if nanoseconds >= 10**3 else "ns"
        return f"{sign}{_trim(nanoseconds, _UNITS[unit])}{unit}"
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    text = f"{_trim(rest, 10**9)}s"
    if minutes >= 60:
        text = f"{minutes // 60}h{minutes % 60}m{text}"
    elif minutes:
        text = f"{minutes}m{text}"
    return sign + text


def _trim(value: int, unit: int) -> str:
    """``value / unit`` without zeros at the end, exact."""
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    return f"{whole}.{str(rest).rjust(len(str(unit)) - 1, '0').rstrip('0')}"


@dataclass(frozen=True, slots=True, order=True)
class KeepAlive:
    """How long a model stays in memory after its last request.

    Attributes:
        seconds: 0: not at all; infinite: for ever. Ordering is by length.
    """

    seconds: float

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read what ``keep_alive`` and ``OLLAMA_KEEP_ALIVE`` hold.

        Args:
            value: seconds as a number, or as text; or a duration in Go's grammar. Negative: for ever.

        Raises:
            BadRequestError: it is none of these.
        """
        if isinstance(value, str):
            text = value.strip()
            try:
                seconds = float(text) if re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?", text) else parse_duration(text)
            except ValueError as error:
                raise BadRequestError(f"keep_alive: {error}, nor a number of seconds (negative: for ever)") from error
        elif isinstance(value, int) and not isinstance(value, bool):
            seconds = float(max(-1, min(value, _LONGEST)))  # floats do not hold integers of hundreds of digits
        elif isinstance(value, float) and not math.isnan(value):
            seconds = value
        else:
            raise BadRequestError(f"keep_alive: {value!r} is neither a number of seconds nor a duration such as 5m")
        if seconds < 0 or seconds * 10**9 > _LONGEST:
            seconds = math.inf
        return cls(seconds)

    @property
    def forever(self) -> bool:
        """Whether the model stays until it is unloaded or the memory is needed."""
        return math.isinf(self.seconds)

    def __str__(self) -> str:
        return "-1" if self.forever else format_duration(self.seconds)
