"""Parts of content: text and images, as OpenAI's chat, OpenAI's responses and Anthropic write them."""

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from pyggml_server.api.v1.errors import FieldError

__all__ = ["Content", "arguments_of"]

_DATA = re.compile(r"data:(image/(?:jpeg|jpg|png|webp))?;base64,", re.ASCII)
_TEXTS: Final = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "summary_text": "text",
    "reasoning_text": "text",
    "refusal": "refusal",
}


@dataclass(slots=True)
class Content:
    """What a message says: its texts in order, and its images.

    Several texts are one with blank lines between, which is how Ollama's templates put neighbours together.
    """

    texts: list[str] = field(default_factory=list)
    images: list[bytes] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All texts as one."""
        return "\n\n".join(self.texts)

    @classmethod
    def read(cls, content: str | Sequence[Mapping[str, Any]] | None, *, path: str) -> Self:
        """Read what a message has in its ``content``; None is nothing.

        Raises:
            FieldError: a part of an unknown type, or one that is damaged; ``path`` and its index name it.
        """
        found = cls()
        if isinstance(content, str):
            found.texts.append(content)
            return found
        for index, part in enumerate(content or ()):
            found.add(part, path=f"{path}[{index}]")
        return found

    def add(self, part: object, *, path: str) -> None:
        """Take one part.

        Raises:
            FieldError: its type is unknown, or it is damaged.
        """
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not isinstance(part, Mapping) or not isinstance(kind, str):
            raise FieldError(f"{path} has no type", param=path)
        if kind in _TEXTS:
            text = part.get(_TEXTS[kind])
            if not isinstance(text, str):
                raise FieldError(f"{path}.{_TEXTS[kind]} is not text", param=path)
            self.texts.append(text)
        elif kind in ("image_url", "input_image"):
            self.images.append(_image_of_url(part.get("image_url"), path=path))
        elif kind == "image":
            self.images.append(_image_of_source(part.get("source"), path=path))
        else:
            raise FieldError(
                f"{path}: content of type {kind[:40]!r} is not supported: only text and images", param=path
            )


def arguments_of(text: str | Mapping[str, Any], *, path: str) -> dict[str, Any]:
    """The arguments of a call that was made earlier: JSON in a string, or the object itself.

    Raises:
        FieldError: no JSON object.
    """
    if isinstance(text, Mapping):
        return dict(text)
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise FieldError(f"invalid tool call arguments: {path} is not a JSON object in a string", param=path)
    return found


def _image_of_url(url: object, *, path: str) -> bytes:
    if isinstance(url, Mapping):
        url = url.get("url")
    head = _DATA.match(url) if isinstance(url, str) else None
    if head is None or not isinstance(url, str):
        message = f"invalid image input: {path} must be a data URI (data:image/png;base64,…); nothing is fetched"
        raise FieldError(message, param=path)
    return _decode(url[head.end() :], path=path)


def _image_of_source(source: object, *, path: str) -> bytes:
    if not isinstance(source, Mapping) or source.get("type") != "base64" or not isinstance(source.get("data"), str):
        raise FieldError(f"{path}.source must be of type base64; nothing is fetched", param=f"{path}.source")
    return _decode(source["data"], path=path)


def _decode(text: str, *, path: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FieldError(f"invalid image input: {path} is not base64", param=path) from None
