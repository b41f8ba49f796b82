"""Manifests: ``manifests/<host>/<namespace>/<model>/<tag>``, JSON that lists the blobs of a model."""

import hashlib
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pyggml_server.errors import InvalidNameError, ModelNotFoundError, StoreError
from pyggml_server.names import Name
from pyggml_server.store.blobs import parse_digest

__all__ = ["CONFIG_MEDIA_TYPE", "LAYER_PREFIX", "Layer", "Manifest", "ManifestStore", "parse_manifest"]

_log: Final = logging.getLogger(__name__)

MANIFEST_MEDIA_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_MEDIA_TYPE: Final = "application/vnd.docker.container.image.v1+json"
LAYER_PREFIX: Final = "application/vnd.ollama.image."
# 4 MB of JSON is far more than any model needs
_MAX_BYTES: Final = 4 << 20
_TEMPORARY: Final = re.compile(r"\.[0-9a-f]{16}\.tmp\Z")
_ABANDONED_SECONDS: Final = 24 * 3600
_NEVER: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Layer:
    """A reference to a blob.

    Attributes:
        media_type: What it is.
        digest: Of its content.
        size: In bytes.
        source: Where it was taken from, as Ollama notes it (``from``): on a push, the registry may have it there.
    """

    media_type: str
    digest: str
    size: int
    source: str = ""

    @property
    def kind(self) -> str:
        """The last word of Ollama's media types (``model``, ``template``, ``params`` …); else empty."""
        known = self.media_type.startswith(LAYER_PREFIX)
        return self.media_type.removeprefix(LAYER_PREFIX) if known else ""

    def as_json(self) -> dict[str, Any]:
        """The layer as it stands in a manifest."""
        document: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return {**document, "from": self.source} if self.source else document


@dataclass(frozen=True, slots=True)
class Manifest:
    """The blobs of a model.

    Attributes:
        config: The description of the model.
        layers: Weights, template, parameters and so on, in order.
        digest: SHA-256 of the manifest's bytes (hexadecimal), the model's id; empty before it was written.
        modified: When the manifest was written.
    """

    config: Layer
    layers: tuple[Layer, ...]
    digest: str = ""
    modified: datetime = _NEVER

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return self.config.size + sum(layer.size for layer in self.layers)

    @property
    def digests(self) -> set[str]:
        """The digests of all blobs."""
        return {self.config.digest, *(layer.digest for layer in self.layers)}

    def to_bytes(self) -> bytes:
        """The JSON as Ollama writes it: no blanks, one newline at the end."""
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_MEDIA_TYPE,
            "config": self.config.as_json(),
            "layers": [layer.as_json() for layer in self.layers],
        }
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


class ManifestStore:
    """The folder of manifests.

    Args:
        folder: Where they lie; made when the first one is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder

    def path(self, name: Name) -> Path:
        """Where the manifest of a name lies or would lie."""
        return self.folder.joinpath(*name.parts)

    def resolve(self, name: Name) -> Name:
        """The name in the spelling that the store already uses, part by part, whatever the case asked for."""
        folder, parts = self.folder, list[str]()
        for part in name.parts:
            found = part
            if not (folder / part).exists() and folder.is_dir():
                same = sorted(p.name for p in folder.iterdir() if p.name.lower() == part.lower())
                found = same[0] if same else part
            parts.append(found)
            folder = folder / found
        host, namespace, model, tag = parts
        return Name(model=model, tag=tag, namespace=namespace, host=host, scheme=name.scheme)

    def names(self) -> Iterator[Name]:
        """The names of all manifests, sorted; files that cannot be names are passed over."""
        for path in sorted(self.folder.glob("*/*/*/*")):
            if not path.is_file():
                continue
            host, namespace, model, tag = path.relative_to(self.folder).parts
            with suppress(InvalidNameError):
                yield Name(model=model, tag=tag, namespace=namespace, host=host)

    def read(self, name: Name) -> Manifest:
        """The manifest of a model, looked up without regard to case.

        Raises:
            ModelNotFoundError: there is none.
            StoreError: it is damaged.
        """
        path = self.path(self.resolve(name))
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
                modified = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ModelNotFoundError(
                f"model {name.display!r} not found, try pulling it first: pyggml pull {name.display}"
            ) from None
        try:
            return _parse(data, modified)
        except (ValueError, TypeError, KeyError, RecursionError, StoreError) as error:
            raise StoreError(f"{path}: the manifest is damaged ({error}); pull or remove the model") from error

    def all(self) -> Iterator[tuple[Name, Manifest]]:
        """All readable manifests; a damaged one is logged and passed over."""
        for name in self.names():
            try:
                yield name, self.read(name)
            except ModelNotFoundError:
                continue  # removed meanwhile
            except StoreError as error:
                _log.warning("%s", error)

    def digests(self) -> set[str]:
        """The blobs that any manifest names.

        Raises:
            StoreError: a file among the manifests cannot be read as one.
        """
        found = set[str]()
        for path in self.folder.glob("*/*/*/*"):
            if path.name.startswith(".") or not path.is_file():
                continue
            try:
                found |= _parse(path.read_bytes(), _NEVER).digests
            except FileNotFoundError:
                continue  # removed meanwhile
            except (ValueError, TypeError, KeyError, RecursionError, StoreError) as error:
                raise StoreError(f"{path}: the manifest is damaged ({error}); pull or remove the model") from error
        return found

    def drop_leftovers(self) -> None:
        """Delete folders of names that have no manifest any more, and what a killed process left a day ago."""
        before = time.time() - _ABANDONED_SECONDS
        for path in self.folder.glob("*/*/*/.*.tmp"):
            with suppress(FileNotFoundError):  # another process was faster
                if _TEMPORARY.match(path.name) and path.stat().st_mtime < before:
                    path.unlink()
        for depth in ("*/*/*", "*/*", "*"):
            for folder in self.folder.glob(depth):
                with suppress(OSError):  # not empty, or no folder
                    folder.rmdir()

    def write(self, name: Name, manifest: Manifest) -> None:
        """Store a manifest under a name, atomically; an old one is replaced."""
        self.write_bytes(name, manifest.to_bytes())

    def read_bytes(self, name: Name) -> bytes:
        """The file of a manifest as it is.

        Raises:
            ModelNotFoundError: there is none.
        """
        self.read(name)
        return self.path(self.resolve(name)).read_bytes()

    def write_bytes(self, name: Name, data: bytes) -> None:
        """Store a manifest as it came from a registry; otherwise as :meth:`write`."""
        path = self.path(self.resolve(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        # the dot keeps it from being taken for a tag
        temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def remove(self, name: Name) -> None:
        """Delete the manifest of a name and the folders that become empty.

        Raises:
            ModelNotFoundError: there is none.
        """
        path = self.path(self.resolve(name))
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            raise ModelNotFoundError(f"model {name.display!r} not found") from None
        for folder in path.parents[:3]:
            try:
                folder.rmdir()
            except OSError:
                break  # not empty


def parse_manifest(data: bytes) -> Manifest:
    """Read the JSON of a manifest that is not in the store.

    Raises:
        StoreError: it is none.
    """
    try:
        return _parse(data, _NEVER)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise StoreError(f"the manifest is damaged ({type(error).__name__}: {error})") from error


def _parse(data: bytes, modified: datetime) -> Manifest:
    if len(data) > _MAX_BYTES:
        raise StoreError(f"it is longer than {_MAX_BYTES} bytes")
    document = json.loads(data)
    if not isinstance(document, dict) or document.get("schemaVersion") != 2:
        raise StoreError("it is not a manifest of schema version 2")
    layers = document.get("layers") or []
    if not isinstance(layers, list):
        raise StoreError("layers is no list")
    digest = hashlib.sha256(data).hexdigest()
    return Manifest(_layer(document["config"]), tuple(_layer(v) for v in layers), digest, modified)


def _layer(value: Any) -> Layer:
    media_type, size = value["mediaType"], value["size"]
    if not isinstance(media_type, str) or not isinstance(size, int) or size < 0:
        raise StoreError("a layer has no media type or size")
    source = value.get("from") or ""
    return Layer(media_type, parse_digest(value["digest"]), size, source if isinstance(source, str) else "")
