"""From the text of a variable to its value. Every parser raises ValueError with what would have been right."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pyggml_server.config.durations import parse_duration

__all__ = [
    "CACHE_TYPES",
    "parse_cache_type",
    "parse_cache_types",
    "parse_count",
    "parse_debug",
    "parse_file",
    "parse_flag",
    "parse_folder",
    "parse_keys",
    "parse_list",
    "parse_size",
    "parse_stall",
    "parse_switch",
]

CACHE_TYPES: Final = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""Element types of cached keys and values."""

_TRUE: Final = ("1", "t", "true", "yes", "on")
_FALSE: Final = ("0", "f", "false", "no", "off")
_SIZES: Final = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_flag(text: str) -> bool:
    """Yes or no, as Go's ``strconv`` reads it, and a few words more."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError("neither true nor false")


def parse_switch(text: str) -> bool | None:
    """Yes, no, or ``auto`` (None)."""
    return None if text.lower() == "auto" else parse_flag(text)


def parse_debug(text: str) -> int:
    """How much the log tells: 0: what matters, 1: decisions, 2 and more: every message."""
    if text.isdigit():
        return int(text)
    return int(parse_flag(text))


def parse_count(low: int) -> Callable[[str], int]:
    """A parser of whole numbers of ``low`` or more."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or int(text) < low:
            raise ValueError(f"not a whole number of {low} or more")
        return int(text)

    return parse


def parse_size(text: str) -> int:
    """Bytes: a number with or without ``K``, ``M``, ``G``, ``T`` (powers of 1024; ``KB`` and ``KiB`` mean the same)."""
    lower = text.lower().removesuffix("b").removesuffix("i")
    unit = lower[-1:] if lower[-1:] in _SIZES else ""
    digits = lower.removesuffix(unit).strip()
    try:
        value = float(digits)
    except ValueError:
        value = -1
    if not 0 <= value < 2**60:
        raise ValueError("not a number of bytes such as 536870912, 512M or 1.5G")
    return int(value * _SIZES[unit])


def parse_stall(text: str) -> float | None:
    """A duration, or whole seconds; 0 or less: no limit (None)."""
    number = text.removeprefix("-")
    seconds = float(text) if number.isascii() and number.isdigit() else parse_duration(text)
    return seconds if seconds > 0 else None


def parse_folder(text: str) -> Path:
    """An absolute path; ``~`` is the home folder."""
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"the home folder cannot be found ({error})") from error


def parse_file(text: str) -> Path | None:
    """A file that exists; nothing: None."""
    if not text:
        return None
    path = parse_folder(text)
    if not path.is_file():
        raise ValueError("there is no such file")
    return path


def parse_list(text: str) -> tuple[str, ...]:
    """Parts between commas, without blanks around them."""
    return tuple(part for part in (part.strip().strip("\"'") for part in text.split(",")) if part)


def parse_keys(text: str) -> tuple[str, ...]:
    """Keys between commas, each as it is or as ``sha256:HEX`` of it; only the hashes are kept."""
    found = []
    for key in parse_list(text):
        if not key.startswith("sha256:"):
            import hashlib  # here: OpenSSL takes 4 MiB, and most have no keys

            key = f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
        elif not re.fullmatch("sha256:[0-9a-fA-F]{64}", key):
            raise ValueError("behind sha256: there must be 64 hexadecimal digits")
        found.append(key.lower())
    return tuple(found)


def parse_cache_type(text: str) -> str | None:
    """An element type of the cache; nothing: None."""
    if not text:
        return None
    name = text.lower()
    if name not in CACHE_TYPES:
        raise ValueError(f"not one of {', '.join(CACHE_TYPES)}")
    return name


def parse_cache_types(text: str) -> tuple[str, str]:
    """Types of cached keys and values: one for both, or two between a comma."""
    parts = [parse_cache_type(part.strip()) or "f16" for part in text.split(",")]
    if len(parts) > 2:
        raise ValueError("more than two types; give one for both, or that of the keys and that of the values")
    return parts[0], parts[-1]
