"""Stop strings, also across the borders of tokens."""

from collections.abc import Sequence

from pyggml.errors import ParameterError

__all__ = ["StopMatcher"]


class StopMatcher:
    """Lets text through until one of the stop strings appears; holds back what may become one."""

    def __init__(self, stop: Sequence[str]) -> None:
        """
        Args:
            stop: the strings, none of them empty; a single string is one of them.

        Raises:
            ParameterError: an empty stop string.
        """
        self._stop = (stop,) if isinstance(stop, str) else tuple(stop)
        if any(not text for text in self._stop):
            raise ParameterError("a stop string must not be empty")
        self._held = ""
        self.found: str | None = None
        """The stop string that ended the text."""

    def push(self, text: str) -> str:
        """Add text; returns what can be shown now. After a stop string was found, nothing more comes out."""
        if self.found is not None:
            return ""
        if not self._stop:
            return text
        held = self._held + text
        # The one that is complete first, so that the result does not depend on how the text was cut.
        hits = [(at + len(stop), at, stop) for stop in self._stop if (at := held.find(stop)) >= 0]
        if hits:
            _, at, self.found = min(hits)
            self._held = ""
            return held[:at]
        keep = max(self._partial(held, stop) for stop in self._stop)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    @staticmethod
    def _partial(text: str, stop: str) -> int:
        """Length of the longest end of ``text`` that begins ``stop``."""
        for n in range(min(len(text), len(stop) - 1), 0, -1):
            if text.endswith(stop[:n]):
                return n
        return 0

    def flush(self) -> str:
        """At the end: what was held back for nothing."""
        held, self._held = self._held, ""
        return "" if self.found is not None else held
