"""What a caller asks for: one frozen value per grammar, checked only as far as needs no vocabulary."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pyggml.errors import GrammarError, ParameterError

__all__ = ["Grammar", "GrammarKind"]


class GrammarKind(StrEnum):
    """The languages in which a grammar can be written."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    CHOICE = "choice"
    GBNF = "gbnf"
    LARK = "lark"


@dataclass(frozen=True)
class Grammar:
    """A set of texts, one of which the model must write. Make it with one of the class methods.

    Attributes:
        kind: the language of ``text``.
        text: the grammar; for a choice, a JSON array of strings.
        lenient: ignore keywords of a JSON schema that are not supported, instead of refusing them.
        compact: JSON on one line, with no choice about white space.
    """

    kind: GrammarKind
    text: str
    lenient: bool = False
    compact: bool = False

    @classmethod
    def json(cls) -> "Grammar":
        """Any JSON object (not a bare array, string or number), as "JSON mode" means elsewhere."""
        return cls.json_schema({"type": "object"})

    @classmethod
    def json_schema(
        cls, schema: Mapping[str, object] | str | Literal[True], *, lenient: bool = False, compact: bool = False
    ) -> "Grammar":
        """JSON that a schema allows, its properties in the order in which the schema lists them.

        White space between tokens is at most one space, or one line break with indentation: a model that is only
        allowed to go on with blanks could do so for ever.

        Args:
            schema: the schema, or its text; True allows any JSON value.
            lenient: ignore keywords that llguidance does not support (``uniqueItems``, ``not``, ``if``, ...):
                :attr:`Matcher.warnings` then names them. Without it they are an error.
            compact: everything on one line, one space after commas and colons and no other. Keys are then forced
                tokens, which need no computation of their own, and the model cannot indent.

        Raises:
            GrammarError: the text is not JSON, or is neither an object nor ``true``.
        """
        value = _parse(schema) if isinstance(schema, str) else schema
        if value is True:
            value = {}
        if not isinstance(value, Mapping):
            raise GrammarError(f"a JSON schema is an object or true, got {type(value).__name__}")
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise GrammarError(f"the JSON schema cannot be written as JSON: {error}") from error
        return cls(GrammarKind.JSON_SCHEMA, text, lenient=lenient, compact=compact)

    @classmethod
    def regex(cls, pattern: str) -> "Grammar":
        """Text that a regular expression matches from its beginning to its end.

        The syntax is that of Rust's ``regex``: Python's without look-around and references to groups. ``^`` at the
        beginning and ``$`` at the end mean nothing more and are allowed.
        """
        return cls(GrammarKind.REGEX, pattern)

    @classmethod
    def choice(cls, strings: Sequence[str]) -> "Grammar":
        """One of several strings.

        Raises:
            ParameterError: there are none, or one of them is no string.
        """
        if isinstance(strings, str) or not strings or not all(isinstance(s, str) for s in strings):
            raise ParameterError("a choice needs a list of one or more strings")
        return cls(GrammarKind.CHOICE, json.dumps(list(dict.fromkeys(strings))))

    @classmethod
    def gbnf(cls, text: str) -> "Grammar":
        """Text that ``root`` of a grammar in llama.cpp's GBNF derives."""
        return cls(GrammarKind.GBNF, text)

    @classmethod
    def lark(cls, text: str) -> "Grammar":
        """Text that ``start`` of a grammar in llguidance's dialect of Lark derives.

        Terminals match as much as they can: after ``/[a-z]+/`` no letter can follow. ``<|name|>`` stands for the
        special token of that name; ``%json {...}`` embeds a JSON schema.
        """
        return cls(GrammarKind.LARK, text)


def _parse(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        message = f"the JSON schema is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        raise GrammarError(message, line=error.lineno, column=error.colno) from error
    except RecursionError as error:
        raise GrammarError("the JSON schema is nested too deeply") from error
