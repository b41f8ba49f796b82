"""How long the shortest text of a regular expression is.

llguidance looks ahead over everything that must come, at every step, however long it is: a{1000000} costs a second a
token. So the length of what must come is bounded beforehand.
"""

import re

__all__ = ["shortest_text"]

COUNT = re.compile(r"\{\s*([0-9]{1,9})\s*(?:,\s*[0-9]{0,9}\s*)?\}")
ESCAPE = re.compile(r"\\(?:[xuUpP]\{[^}]*\}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
FLAGS = re.compile(r"\?(?:P?<[^>]*>|[a-zA-Z-]*[:)])")


def shortest_text(pattern: str) -> int:
    """Least number of characters of a text that ``pattern``, in Rust's syntax, matches; 0 where it is malformed."""
    # One entry per open group: the shortest finished alternative, the length of the present one, that of its last item.
    stack: list[tuple[int | None, int, int]] = []
    best: int | None = None
    total = last = at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "(":
            stack.append((best, total + last, 0))
            best, total, last = None, 0, 0
            at += 1
            if flags := FLAGS.match(pattern, at):
                # (?flags) is complete; (?flags: opens a group.
                at = flags.end() - (flags[0].endswith(")"))
        elif char == ")":
            inside = min(total + last, total + last if best is None else best)
            best, total, last = (stack.pop()[:2] + (inside,)) if stack else (None, 0, 0)
            at += 1
        elif char == "|":
            best = min(total + last, total + last if best is None else best)
            total = last = 0
            at += 1
        elif char in "*?":
            last = 0 if at and pattern[at - 1] not in "*+?}" else last
            at += 1
        elif char == "+":
            at += 1
        elif char == "{" and (count := COUNT.match(pattern, at)):
            last *= int(count[1])
            at = count.end()
        else:
            total, last = total + last, int(char not in "^$")
            at = _after_item(pattern, at)
    return min(total + last, total + last if best is None else best)


def _after_item(pattern: str, at: int) -> int:
    """The end of the character, escape or class at ``at``."""
    if pattern[at] == "\\" and (found := ESCAPE.match(pattern, at)):
        return found.end()
    if pattern[at] != "[":
        return at + 1
    depth, at = 1, at + 1
    at += pattern.startswith("^", at)
    at += pattern.startswith("]", at)  # there, it stands for itself
    while at < len(pattern) and depth:
        if pattern[at] == "\\":
            at += 1
        elif pattern[at] == "[":
            depth += 1
        elif pattern[at] == "]":
            depth -= 1
        at += 1
    return at
