"""Tags that may be cut anywhere in a stream."""

from collections.abc import Iterable

__all__ = ["held_suffix", "held_suffix_of_any"]


def held_suffix(text: str, tag: str) -> int:
    """Length of the longest end of ``text`` that could go on to ``tag``; a whole tag does not count."""
    for n in range(min(len(text), len(tag) - 1), 0, -1):
        if text.endswith(tag[:n]):
            return n
    return 0


def held_suffix_of_any(text: str, tags: Iterable[str]) -> int:
    """The longest of :func:`held_suffix` over several tags."""
    return max((held_suffix(text, tag) for tag in tags), default=0)
