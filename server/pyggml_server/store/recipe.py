"""What a request to create a model asks for, checked."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final, Self

from pyggml_server.errors import BadRequestError, StoreError
from pyggml_server.modelfile import RETIRED, check_parameter
from pyggml_server.names import Name
from pyggml_server.store.blobs import parse_digest

__all__ = ["Recipe", "SourceFile"]

_TEXTS: Final = ("template", "system", "renderer", "parser", "requires", "quantize", "draft_quantize", "from")
_ROLES: Final = frozenset({"system", "user", "assistant", "tool"})
_MAX_FILES: Final = 10_000
_MAX_PATH: Final = 1000
_MAX_PART: Final = 255
_MAX_TEXT: Final = 16 << 20
_MAX_VERSION: Final = 100
_REFUSED: Final = {
    "info": "it is for remote models, which are not served",
    "remote_host": "models on other hosts are not served",
}
_VERSION: Final = re.compile(r"v?\d+(\.\d+){0,2}([-+][0-9A-Za-z.+-]+)?\Z")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that was uploaded before: the path it had (relative, without ``..``), and its digest."""

    path: PurePosixPath
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A checked request; None means that what the model is made from stays.

    Attributes:
        name: The model to make.
        base: A model to start from.
        files: Files to start from.
        adapters: LoRA files.
        draft_files: Files of a smaller model that proposes tokens.
        quantize: The mix of types to bring the weights to.
        draft_quantize: The same for the draft model.
        template: Prompt template.
        system: System message; an empty one removes the inherited one.
        renderer: Recorded for Ollama, as ``parser`` and ``requires`` are.
        licenses: To append.
        parameters: Default options to set.
        messages: Messages in front of each conversation.
    """

    name: Name
    base: Name | None = None
    files: tuple[SourceFile, ...] = ()
    adapters: tuple[SourceFile, ...] = ()
    draft_files: tuple[SourceFile, ...] = ()
    quantize: str | None = None
    draft_quantize: str | None = None
    template: str | None = None
    system: str | None = None
    renderer: str | None = None
    parser: str | None = None
    requires: str | None = None
    licenses: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    messages: tuple[Mapping[str, str], ...] | None = None

    @classmethod
    def parse(cls, request: Mapping[str, Any]) -> Self:
        """Check the JSON of ``/api/create``.

        Raises:
            BadRequestError: something in it cannot be used.
            InvalidNameError: a name breaks the grammar.
        """
        fields = {key: value for key, value in request.items() if value is not None}
        fields.setdefault("quantize", fields.get("quantization"))
        for key in _TEXTS:
            if fields.get(key) is not None and not isinstance(fields[key], str):
                raise BadRequestError(f"{key} is no text")
            if len(fields.get(key) or "") > _MAX_TEXT:
                raise BadRequestError(f"{key} is longer than {_MAX_TEXT} characters")
        for key, why in _REFUSED.items():
            if fields.get(key):
                raise BadRequestError(f"{key}: {why}")
        base, files = fields.get("from") or "", _files(fields.get("files") or {})
        if not base and not files:
            raise BadRequestError("neither 'from' or 'files' was specified")
        if base and files:
            raise BadRequestError("both 'from' and 'files' were specified: give one of them")
        if (version := fields.get("requires")) and not (len(version) <= _MAX_VERSION and _VERSION.match(version)):
            raise BadRequestError(f"requires: {version[:40]!r} is no version")
        return cls(
            name=Name.parse(str(fields.get("model") or fields.get("name") or "")),
            base=Name.parse(base) if base else None,
            files=files,
            adapters=_files(fields.get("adapters") or {}),
            draft_files=_files(fields.get("draft_files") or {}),
            quantize=fields["quantize"] or None,
            draft_quantize=fields.get("draft_quantize") or None,
            template=fields.get("template"),
            system=fields.get("system"),
            renderer=fields.get("renderer"),
            parser=fields.get("parser"),
            requires=fields.get("requires"),
            licenses=_licenses(fields.get("license") or ()),
            parameters=_parameters(fields.get("parameters") or {}),
            messages=_messages(fields["messages"]) if "messages" in fields else None,
        )


def _files(value: Any) -> tuple[SourceFile, ...]:
    if not isinstance(value, Mapping) or len(value) > _MAX_FILES:
        raise BadRequestError(f"files are an object of at most {_MAX_FILES} paths with their digests")
    found = []
    for text, digest in value.items():
        path = PurePosixPath(str(text).replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in str(text) or ":" in path.parts[0]:
            raise BadRequestError(f"file path must be relative: {str(text)[:200]!r}")
        if len(str(path)) > _MAX_PATH or any(len(part.encode("utf-8", "replace")) > _MAX_PART for part in path.parts):
            raise BadRequestError(f"file path is too long: {str(text)[:200]!r}")
        try:
            found.append(SourceFile(path, parse_digest(str(digest))))
        except StoreError:
            raise BadRequestError(f"invalid digest format: {str(digest)[:100]!r}") from None
    paths = {file.path for file in found}
    if len(paths) != len(found):
        raise BadRequestError("two files have the same path")
    for file in found:
        if not paths.isdisjoint(file.path.parents):
            raise BadRequestError(f"{file.path}: a part of this path is a file, too")
    return tuple(found)


def _licenses(value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise BadRequestError("license is a text or a list of texts")
    return tuple(text for text in texts if text)


def _parameters(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise BadRequestError("parameters are an object")
    checked = {}
    for name, item in value.items():
        if name in RETIRED:
            continue
        check_parameter(str(name), item)
        checked[str(name)] = [item] if name == "stop" and isinstance(item, str) else item
    return checked


def _messages(value: Any) -> tuple[Mapping[str, str], ...]:
    if not isinstance(value, list | tuple):
        raise BadRequestError("messages are a list")
    checked = []
    for message in value:
        role, content = (message.get(key) for key in ("role", "content")) if isinstance(message, Mapping) else ("", "")
        if role not in _ROLES or not isinstance(content, str):
            raise BadRequestError(f"a message has a role and a content, not {json.dumps(message, default=str)[:100]}")
        if any(message.get(key) for key in message if key not in ("role", "content")):
            raise BadRequestError("messages of a model have a role and a content, nothing else")
        checked.append({"role": role, "content": content})
    return tuple(checked)
