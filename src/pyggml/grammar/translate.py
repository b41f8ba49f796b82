"""From a :class:`Grammar` to the text that llguidance compiles, within limits; and from its complaints to errors."""

import contextlib
import json
import re

import llguidance

from pyggml.errors import GrammarError

from .checks import check_regex, check_schema, need
from .gbnf import gbnf_to_lark
from .limits import GrammarLimits
from .spec import Grammar, GrammarKind

__all__ = ["explain", "translate"]

# One space, or a line break and indentation.
WHITE_SPACE = r"[ ]?|\n[ \t]{0,40}"
# Strings, comments and regular expressions of Lark, in which a colon does not define anything.
QUOTED = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/(?:\\.|[^/\\\n])+/')
DEFINITION = re.compile(r"[\w\]}]\s*:")
# Rust's regex takes a backslash before any of these for the character itself.
SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$#&\-~/]")


def translate(spec: Grammar, limits: GrammarLimits) -> str:
    """The grammar in llguidance's own form.

    Raises:
        GrammarError: it is over a limit, or (GBNF) not well-formed.
    """
    match spec.kind:
        case GrammarKind.JSON_SCHEMA:
            return _translate_schema(spec, limits)
        case GrammarKind.REGEX:
            check_regex(spec.text, limits)
            return _regex(_without_anchors(spec.text))
        case GrammarKind.CHOICE:
            strings = json.loads(spec.text)
            need(len(strings), limits.choices, "choices")
            need(max(map(len, strings)), limits.forced_chars, "characters in one choice")
            need(len(spec.text), limits.schema_chars, "characters in the choices")
            return _regex("|".join(map(_escape, strings)))
        case GrammarKind.GBNF:
            need(len(spec.text), limits.text_chars, "characters in the GBNF grammar")
            lark = gbnf_to_lark(spec.text, max_rules=limits.rules, max_forced=limits.forced_chars)
            return str(llguidance.LLMatcher.grammar_from_lark(lark))
        case GrammarKind.LARK:
            _check_lark(spec.text, limits)
            return str(llguidance.LLMatcher.grammar_from_lark(spec.text))


def explain(kind: GrammarKind, complaint: str) -> GrammarError:
    """What llguidance says, without its dumps, as an error of ours; with the place where the text is the caller's."""
    text = re.split(r"<(?:non-verbose|state|backtrace)", complaint)[0].strip()
    if text.startswith("NoExtension") or "has to be stopped" in text:
        return GrammarError("no text satisfies the grammar")
    if kind is GrammarKind.REGEX and (
        found := re.search(r"regex parse error:\n(.*)\nerror: ([^\n]+)", text, re.DOTALL)
    ):
        caret = found[1].rpartition("\n")[2]
        column = max(1, caret.find("^") - 3)
        return GrammarError(f"the regular expression is wrong at column {column}: {found[2]}", line=1, column=column)
    line = column = None
    if found := re.match(r"(?:at )?(\d+)\((\d+)\): ", text):
        text = text[found.end() :]
        if kind is GrammarKind.LARK:
            line, column = int(found[1]), int(found[2])
    place = f" at line {line} column {column}" if line is not None else ""
    reason = " ".join(re.split(r"\n\s*\d+ \| ", text)[0].split())
    name = {GrammarKind.JSON_SCHEMA: "JSON schema", GrammarKind.REGEX: "regular expression"}.get(kind, "grammar")
    return GrammarError(f"the {name} is refused{place}: {reason[:400]}", line=line, column=column)


def _regex(pattern: str) -> str:
    return str(llguidance.LLMatcher.grammar_from_regex(pattern))


def _escape(text: str) -> str:
    return SPECIAL.sub(r"\\\g<0>", text).replace("\n", r"\n").replace("\r", r"\r")


def _without_anchors(pattern: str) -> str:
    """Drop ``^`` in front and ``$`` behind, which say what is true anyway."""
    pattern = pattern.removeprefix("^")
    if pattern.endswith("$"):
        head = pattern[:-1]
        if (len(head) - len(head.rstrip("\\"))) % 2 == 0:
            return head
    return pattern


def _translate_schema(spec: Grammar, limits: GrammarLimits) -> str:
    need(len(spec.text), limits.schema_chars, "characters in the JSON schema")
    check_schema(json.loads(spec.text), limits)
    options: llguidance._lib.JsonCompileOptions = {"lenient": spec.lenient, "coerce_one_of": spec.lenient}
    if spec.compact:
        options |= {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    else:
        options |= {"whitespace_pattern": WHITE_SPACE}
    try:
        return str(llguidance.LLMatcher.grammar_from_json_schema(spec.text, defaults=options))
    except ValueError as error:
        raise GrammarError(f"the JSON schema is refused: {error}") from error


def _check_lark(text: str, limits: GrammarLimits) -> None:
    need(len(text), limits.text_chars, "characters in the Lark grammar")
    for quoted in QUOTED.finditer(text):
        if quoted[0].startswith("/") and not quoted[0].startswith("//"):
            check_regex(quoted[0][1:-1], limits)
    need(len(DEFINITION.findall(QUOTED.sub('""', text))), limits.rules, "rules in the Lark grammar")
    for embedded in re.finditer(r"%json\s*", text):
        with contextlib.suppress(json.JSONDecodeError, RecursionError):  # llguidance says what is wrong
            check_schema(json.JSONDecoder().raw_decode(text, embedded.end())[0], limits)
