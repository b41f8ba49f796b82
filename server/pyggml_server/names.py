"""Names of models: ``[scheme://][host/][namespace/]model[:tag]``, with Ollama's grammar and defaults."""

import re
from dataclasses import dataclass, field, replace
from typing import Final, Self

from pyggml_server.errors import InvalidNameError

__all__ = ["DEFAULT_HOST", "DEFAULT_NAMESPACE", "DEFAULT_TAG", "Name"]

DEFAULT_SCHEME: Final = "https"
DEFAULT_HOST: Final = "registry.ollama.ai"
DEFAULT_NAMESPACE: Final = "library"
DEFAULT_TAG: Final = "latest"

# Every part begins with a letter, a digit or "_", so no part can be "." or ".." or hold a "/".
_PARTS: Final = {
    "host": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}\Z"),
    "namespace": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}\Z"),
    "model": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}\Z"),
    "tag": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}\Z"),
}


@dataclass(frozen=True, slots=True)
class Name:
    """A complete, valid model name. Names compare by their exact spelling; the store looks them up without
    case.

    Raises:
        InvalidNameError: a part breaks the grammar.
    """

    model: str
    tag: str = DEFAULT_TAG
    namespace: str = DEFAULT_NAMESPACE
    host: str = DEFAULT_HOST
    scheme: str = field(default=DEFAULT_SCHEME, compare=False)

    def __post_init__(self) -> None:
        for part, pattern in _PARTS.items():
            value: str = getattr(self, part)
            if not pattern.match(value):
                raise InvalidNameError(
                    f"invalid model name: the {part} {value[:100]!r} is not allowed "
                    "(form: [host/][namespace/]model[:tag]; letters, digits, '_', '-' and '.')"
                )
        if self.scheme not in ("http", "https"):
            raise InvalidNameError(f"invalid model name: scheme {self.scheme!r} is neither http nor https")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name as people write it; what is left out gets its default.

        Raises:
            InvalidNameError: the text breaks the grammar.
        """
        rest, parts = text, dict[str, str]()
        # A colon after the last slash begins the tag; one before it belongs to a host's port.
        if rest.rfind(":") > rest.rfind("/"):
            rest, _, parts["tag"] = rest.rpartition(":")
        rest, slash, parts["model"] = rest.rpartition("/")
        if slash:
            rest, slash, parts["namespace"] = rest.rpartition("/")
        if slash:
            scheme, found, parts["host"] = rest.rpartition("://")
            if found:
                parts["scheme"] = scheme.lower()
        if not parts["model"]:
            raise InvalidNameError(f"invalid model name {text[:100]!r}: there is no model in it")
        return cls(**parts)

    @property
    def display(self) -> str:
        """The shortest form: without the default host and namespace (in any case), always with the tag."""
        text = f"{self.model}:{self.tag}"
        if self.host.lower() != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{text}"
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{text}"
        return text

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """Host, namespace, model and tag: the path of the manifest in a store."""
        return self.host, self.namespace, self.model, self.tag

    @property
    def folded(self) -> Self:
        """The name in lower case, to compare without case."""
        host, namespace, model, tag = (part.lower() for part in self.parts)
        return replace(self, host=host, namespace=namespace, model=model, tag=tag)

    def __str__(self) -> str:
        return self.display
