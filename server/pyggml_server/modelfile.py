"""Modelfiles: the text from which ``create`` makes a model."""

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pyggml_server.errors import BadRequestError

__all__ = [
    "PARAMETERS",
    "RETIRED",
    "Command",
    "Modelfile",
    "check_parameter",
    "parse_modelfile",
    "parse_parameter",
    "read_modelfile",
]

_INT, _FLOAT, _BOOL, _TEXTS, _NUMBERS, _JSON = "int", "float", "bool", "texts", "numbers", "json"
PARAMETERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(
            ("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep", "num_predict", "top_k", "seed",
             "mirostat", "repeat_last_n", "dry_allowed_length", "dry_penalty_last_n", "min_keep",
             "draft_num_predict"), _INT),
        **dict.fromkeys(
            ("temperature", "top_p", "min_p", "typical_p", "top_n_sigma", "xtc_probability", "xtc_threshold",
             "dynatemp_range", "dynatemp_exponent", "mirostat_tau", "mirostat_eta", "repeat_penalty",
             "presence_penalty", "frequency_penalty", "dry_multiplier", "dry_base"), _FLOAT),
        **dict.fromkeys(("use_mmap", "ignore_eos"), _BOOL),
        **dict.fromkeys(("stop", "dry_sequence_breakers"), _TEXTS),
        "adapters": _NUMBERS,
        "logit_bias": _JSON,
    }
)  # fmt: skip
"""Every option that a model may bring along, with its kind."""
RETIRED: Final = frozenset(
    {"penalize_newline", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock", "mlock", "numa",
     "embedding_only", "rope_frequency_base", "rope_frequency_scale", "tfs_z", "num_gqa"}
)  # fmt: skip
"""Options of old Modelfiles that mean nothing any more."""

_COMMANDS: Final = ("FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "RENDERER", "PARSER",
                    "REQUIRES", "DRAFT")  # fmt: skip
_ROLES: Final = ("system", "user", "assistant")
_TRUE: Final = frozenset({"1", "t", "true"})
_FALSE: Final = frozenset({"0", "f", "false"})
_MAX_BYTES: Final = 64 << 20
_WORD: Final = re.compile(r"[A-Za-z_]+")


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        name: In capitals.
        value: Without the quotes around it.
        key: The name of a parameter, or the role of a message.
        line: Where it begins, from 1.
    """

    name: str
    value: str
    key: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Modelfile:
    """A Modelfile that was read; ``warnings`` tells what means nothing any more."""

    commands: tuple[Command, ...]
    warnings: tuple[str, ...] = ()

    def values(self, name: str) -> list[str]:
        """The values of all commands of a name, in order."""
        return [command.value for command in self.commands if command.name == name]

    def request(self) -> dict[str, Any]:
        """What ``/api/create`` is asked for, without the files that FROM and ADAPTER name.

        Raises:
            BadRequestError: a parameter has a wrong value.
        """
        fields: dict[str, Any] = {}
        for name in ("TEMPLATE", "SYSTEM", "RENDERER", "PARSER", "REQUIRES"):
            if found := self.values(name):
                fields[name.lower()] = found[-1]
        if licenses := self.values("LICENSE"):
            fields["license"] = licenses
        if messages := [c for c in self.commands if c.name == "MESSAGE"]:
            fields["messages"] = [{"role": c.key, "content": c.value} for c in messages]
        parameters: dict[str, Any] = {}
        for command in self.commands:
            if command.name != "PARAMETER" or command.key in RETIRED:
                continue
            try:
                value = parse_parameter(command.key, command.value)
            except BadRequestError as error:
                raise BadRequestError(f"line {command.line}: {error}") from None
            if isinstance(value, list):
                parameters.setdefault(command.key, []).extend(value)
            else:
                parameters[command.key] = value
        if parameters:
            fields["parameters"] = parameters
        return fields


def parse_modelfile(data: bytes) -> Modelfile:
    """Read a Modelfile: UTF-8, or UTF-16 with a byte order mark.

    Raises:
        BadRequestError: it breaks the grammar; the message tells the line.
    """
    lines = _decode(data).split("\n")
    commands = tuple(_commands(lines))
    if not any(command.name == "FROM" for command in commands):
        raise BadRequestError("no FROM line: it tells what the model is made of")
    retired = [c for c in commands if c.name == "PARAMETER" and c.key in RETIRED]
    warnings = tuple(f"line {c.line}: parameter {c.key!r} means nothing any more" for c in retired)
    return Modelfile(commands, warnings)


def read_modelfile(path: Path) -> Modelfile:
    """Read the Modelfile at a path, which may be a pipe; for the errors see :func:`parse_modelfile`."""
    with path.open("rb") as file:
        return parse_modelfile(file.read(_MAX_BYTES + 1))


def parse_parameter(name: str, text: str) -> Any:
    """The value of a PARAMETER line.

    Raises:
        BadRequestError: the name is unknown, or the value is not of its kind.
    """
    kind = PARAMETERS.get(name)
    if kind is None:
        raise BadRequestError(f"unknown parameter {name[:80]!r}")
    if kind == _TEXTS:
        return [text]
    word = text.strip()
    try:
        if kind == _INT:
            if not _is_integer(number := int(word)):
                raise ValueError(word)
            return number
        if kind == _FLOAT:
            return _finite(word)
        if kind == _NUMBERS:
            return [_finite(word)]
        if kind == _JSON:
            value = json.loads(word, parse_constant=_finite)
            check_parameter(name, value)
            return value
    except (ValueError, RecursionError):
        raise BadRequestError(f"invalid {kind} value {word[:80]!r} for {name}") from None
    if word.lower() not in _TRUE | _FALSE:
        raise BadRequestError(f"invalid bool value {word[:80]!r} for {name}")
    return word.lower() in _TRUE


def check_parameter(name: str, value: Any) -> None:
    """Check a parameter that came as JSON.

    Raises:
        BadRequestError: the name is unknown, or the value is not of its kind.
    """
    kind = PARAMETERS.get(name)
    if kind is None:
        raise BadRequestError(f"unknown parameter {name[:80]!r}")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {
        _INT: number and _is_integer(value),
        _FLOAT: number,
        _BOOL: isinstance(value, bool),
        _TEXTS: isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value)),
        _NUMBERS: isinstance(value, list) and all(isinstance(v, int | float) for v in value),
        _JSON: isinstance(value, dict),
    }
    if not fits[kind]:
        raise BadRequestError(f"invalid {kind} value {json.dumps(value)[:80]} for {name}")


def _is_integer(value: float) -> bool:
    return -(2**63) <= value < 2**63 and value == int(value)


def _finite(word: str) -> float:
    value = float(word)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(word)
    return value


def _decode(data: bytes) -> str:
    if len(data) > _MAX_BYTES:
        raise BadRequestError(f"a Modelfile of more than {_MAX_BYTES} bytes is not read")
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRequestError(
            f"the Modelfile is no {error.encoding} text: {error.reason} at byte {error.start}"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _commands(lines: list[str]) -> Iterator[Command]:
    i = 0
    while i < len(lines):
        # blanks at the end of the line belong to a text that goes on in the next one
        text, number = lines[i].lstrip(), i + 1
        i += 1
        if not text or text.startswith("#"):
            continue
        match = _WORD.match(text)
        name = match[0].upper() if match else ""
        if name not in _COMMANDS or (match and text[match.end() : match.end() + 1].strip()):
            raise BadRequestError(
                f"line {number}: unknown command {text.split()[0][:40]!r}; there are {', '.join(_COMMANDS)}"
            )
        rest, key = text[len(name) :].lstrip(), ""
        if name in ("PARAMETER", "MESSAGE"):
            key, rest = _split_key(name, rest, number)
        if not rest:
            raise BadRequestError(f"line {number}: {name} has no value")
        if rest.startswith('"""'):
            value, i = _read_block(lines, i, rest[3:], number)
        else:
            value = _unquote(rest.rstrip(), number)
        yield Command(name, value, key, number)


def _split_key(name: str, rest: str, number: int) -> tuple[str, str]:
    key, *more = rest.split(None, 1) or [""]
    key = key.lower()
    if name == "MESSAGE" and key not in _ROLES:
        raise BadRequestError(f"line {number}: the role of a message is one of {', '.join(_ROLES)}, not {key[:40]!r}")
    return key, more[0] if more else ""


def _unquote(text: str, number: int) -> str:
    if not text.startswith('"'):
        return text
    if len(text) < 2 or not text.endswith('"'):
        raise BadRequestError(f'line {number}: the text has no closing quote; texts of several lines stand in """')
    return text[1:-1]


def _read_block(lines: list[str], i: int, first: str, number: int) -> tuple[str, int]:
    """The text up to the line that ends in three quotes, and the index of the line behind it."""
    parts, line = list[str](), first
    while True:
        if line.rstrip().endswith('"""'):
            parts.append(line.rstrip()[:-3])
            return "\n".join(parts), i
        parts.append(line)
        if i == len(lines):
            raise BadRequestError(f'line {number}: the text has no closing """')
        line = lines[i]
        i += 1
