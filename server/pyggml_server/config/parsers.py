"""From the text of a variable to its value. Every parser raises ValueError with what would have been right."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pyggml_server.config.durations import parse_duration

__all__ = [
    "CACHE_TYPES",
    "PLAIN_CACHE_TYPES",
    "parse_cache_type",
    "parse_cache_types",
    "parse_count",
    "parse_debug",
    "parse_file",
    "parse_flag",
    "parse_folder",
    "parse_keys",
    "parse_list",
    "parse_origins",
    "parse_size",
    "parse_stall",
    "parse_switch",
]

CACHE_TYPES: Final = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""Element types of cached keys and values."""

PLAIN_CACHE_TYPES: Final = ("f32", "f16", "bf16")
"""Those that are not quantized, and need no flash attention."""

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
    if re.fullmatch("[0-9]{1,9}", text):
        return int(text)
    try:
        return int(parse_flag(text))
    except ValueError as error:
        raise ValueError("neither true, false nor a number such as 2") from error


def parse_count(low: int, high: int = 2**31 - 1) -> Callable[[str], int]:
    """A parser of whole numbers from ``low`` to ``high``."""

    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,20}", text) or int(text) < low:
            raise ValueError(f"not a whole number of {low} or more")
        if int(text) > high:
            raise ValueError(f"more than {high}, the most there can be")
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


def parse_origins(text: str) -> tuple[str, ...]:
    """Origins of web pages as browsers send them, ``scheme://host[:port]``, with ``*`` for any part."""
    found = parse_list(text)
    for origin in found:
        scheme, colons, rest = origin.partition("://")
        if "*" not in origin and not (colons and scheme and rest):
            raise ValueError(f"{origin!r} is no origin such as http://example.com:8080, and has no * for any part")
        if "/" in rest:
            raise ValueError(f"{origin!r}: an origin ends with the host or the port; browsers send no more")
    return found


def parse_keys(text: str) -> tuple[str, ...]:
    """Keys between commas, each as it is, as ``sha256:HEX`` of it, or ``@FILE`` with one on each line.

    Only the hashes are kept. Empty lines of files, and those that begin with ``#``, do not count.
    """
    found = []
    for part in parse_list(text):
        found += [_hash_key(key) for key in (_read_keys(part[1:]) if part.startswith("@") else [part])]
    if text and not found:
        raise ValueError("there is no key in it; unset it to let everybody in")
    return tuple(found)


def _read_keys(name: str) -> list[str]:
    path = parse_folder(name)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise ValueError(f"the file {path} cannot be read: {error.strerror}") from error
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ValueError(f"there is no key in the file {path}")
    return keys


def _hash_key(key: str) -> str:
    if not key.startswith("sha256:"):
        import hashlib  # here: OpenSSL takes 4 MiB, and most have no keys

        return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    if not re.fullmatch("sha256:[0-9a-fA-F]{64}", key):
        raise ValueError("behind sha256: there must be 64 hexadecimal digits")
    return key.lower()


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
