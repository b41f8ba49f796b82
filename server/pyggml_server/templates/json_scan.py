"""Where a JSON value in a stream ends, without reading anything twice."""

import re
from typing import Final

__all__ = ["JsonScanner"]

_OUTSIDE: Final = re.compile(r'["{}\[\]]')
_INSIDE: Final = re.compile(r'["\\]')


class JsonScanner:
    """Counts the brackets of an object or array that begins with the first character it is given."""

    def __init__(self) -> None:
        self._depth = 0
        self._string = False
        self._at = 0

    def end(self, text: str) -> int:
        """The position behind the value, or -1 if it is not complete.

        Args:
            text: All of the text so far, which only ever grows.
        """
        at = self._at
        while True:
            found = (_INSIDE if self._string else _OUTSIDE).search(text, at)
            if found is None:
                self._at = max(at, len(text))
                return -1
            at = found.end()
            mark = found.group()
            if mark == "\\":
                if at >= len(text):
                    self._at = found.start()
                    return -1
                at += 1
            elif mark == '"':
                self._string = not self._string
            elif mark in "{[":
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth <= 0:
                    self._at = at
                    return at
