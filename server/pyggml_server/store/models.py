"""The model store: Ollama's folder of blobs and manifests, seen as models with names."""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from pyggml_server.errors import StoreError
from pyggml_server.names import Name
from pyggml_server.store.blobs import Blob, BlobStore
from pyggml_server.store.details import ModelDetails, describe_gguf
from pyggml_server.store.manifests import (
    CONFIG_MEDIA_TYPE,
    LAYER_PREFIX,
    Layer,
    Manifest,
    ManifestStore,
    parse_manifest,
)

__all__ = ["ModelEntry", "Store", "StoredModel"]

# texts of a model are read whole; anything larger is damage or an attack
_MAX_TEXT: Final = 16 << 20
# a download that was not touched for a week is not gone on with
_RESUMABLE_SECONDS: Final = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A line of the model list.

    Attributes:
        name: The name as stored.
        digest: The model's id: SHA-256 of its manifest (hexadecimal).
        size: Bytes of all its blobs.
        modified: When it was pulled or created.
        details: Its description; empty fields where the description is missing.
    """

    name: Name
    digest: str
    size: int
    modified: datetime
    details: ModelDetails


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model that is complete in the store.

    Attributes:
        name: The name as stored.
        digest: The model's id: SHA-256 of its manifest (hexadecimal).
        modified: When it was pulled or created.
        details: Its description.
        layers: All layers in the order of the manifest.
        path: The GGUF file with the weights.
        projectors: Further GGUF files with vision or audio encoders.
        adapters: LoRA files.
        draft: A smaller model's GGUF file, which proposes tokens; None if there is none.
        template: Ollama's own prompt template; None where the model's own (in the GGUF metadata) is used.
        system: The system message; None if there is none.
        params: Default options, e.g. ``{"stop": ["<|im_end|>"]}``.
        messages: Messages in front of each conversation.
        licenses: Texts of licences.
    """

    name: Name
    digest: str
    modified: datetime
    details: ModelDetails
    layers: tuple[Layer, ...]
    path: Path
    projectors: tuple[Path, ...] = ()
    adapters: tuple[Path, ...] = ()
    draft: Path | None = None
    template: str | None = None
    system: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    messages: tuple[Mapping[str, str], ...] = ()
    licenses: tuple[str, ...] = ()

    @property
    def weights(self) -> Blob:
        """The blob at :attr:`path`."""
        layer = next(layer for layer in self.layers if layer.kind == "model")
        return Blob(layer.digest, layer.size)


class Store:
    """A folder in Ollama's layout (``blobs/`` and ``manifests/``); an existing one is used in place.

    Processes may share it: blobs and manifests appear complete or not at all, and a lock keeps a removal from
    deleting blobs under a model that is just being written.

    Args:
        folder: The store; made when something is written.
        keep_unused: What a name meant before it got another meaning keeps its blobs; :meth:`remove` drops them all
            the same.
    """

    def __init__(self, folder: str | Path, *, keep_unused: bool = False) -> None:
        self.folder: Final = Path(folder)
        self._keep_unused: Final = keep_unused
        self.blobs: Final = BlobStore(self.folder / "blobs")
        """The content-addressed files."""
        self.manifests: Final = ManifestStore(self.folder / "manifests")
        """The names."""

    def list(self) -> list[ModelEntry]:
        """All models, the newest first."""
        entries = [
            ModelEntry(name, manifest.digest, manifest.size, manifest.modified, self._details(manifest))
            for name, manifest in self.manifests.all()
        ]
        return sorted(entries, key=lambda e: (-e.modified.timestamp(), e.name.display))

    def get(self, name: Name) -> StoredModel:
        """A model by name, without regard to case.

        Raises:
            ModelNotFoundError: there is none of that name.
            StoreError: its manifest or one of its blobs is damaged or missing.
        """
        stored = self.manifests.resolve(name)
        return self._model(stored, self.manifests.read(stored))

    def _model(self, name: Name, manifest: Manifest) -> StoredModel:
        """What a manifest describes; all of it is looked at but the weights."""
        label = name.display
        weights = [self._blob_path(label, layer) for layer in manifest.layers if layer.kind == "model"]
        if not weights:
            raise StoreError(f"{label}: the manifest names no model weights")
        texts = {
            kind: self._texts(label, manifest, kind) for kind in ("system", "params", "messages", "license")
        }  # "prompt" is the old media type of templates
        templates = self._texts(label, manifest, "template") or self._texts(label, manifest, "prompt")
        return StoredModel(
            name=name,
            digest=manifest.digest,
            modified=manifest.modified,
            details=self._details(manifest),
            layers=manifest.layers,
            path=weights[0],
            projectors=tuple(self._paths(label, manifest, "projector")),
            adapters=tuple(self._paths(label, manifest, "adapter")),
            draft=next(self._paths(label, manifest, "draft"), None),
            template=templates[-1] if templates else None,
            system=texts["system"][-1] if texts["system"] else None,
            params=_parse_json(label, "params", texts["params"], dict) or {},
            messages=tuple(_parse_json(label, "messages", texts["messages"], list) or ()),
            licenses=tuple(texts["license"]),
        )

    def drop_unused(self, digests: Sequence[str]) -> None:
        """Delete those of the blobs that no model uses."""
        with self.lock():
            self._drop_unreferenced(set(digests))

    def has(self, name: Name) -> bool:
        """Whether there is a model of that name, looked up without regard to case."""
        return self.manifests.path(self.manifests.resolve(name)).is_file()

    def write_model(
        self,
        name: Name,
        *,
        model: Blob,
        details: ModelDetails | None = None,
        template: str | None = None,
        system: str | None = None,
        params: Mapping[str, Any] | None = None,
        licenses: tuple[str, ...] = (),
    ) -> StoredModel:
        """Give a name to weights that are in the store; what the name meant before is replaced.

        Args:
            name: The new name; a stored spelling that differs only by case is kept.
            model: The GGUF blob.
            details: Its description; read from the blob if not given.
            template: Ollama's own prompt template.
            system: System message.
            params: Default options.
            licenses: Texts of licences.

        Raises:
            StoreError: the blob is not (any more) in the store.
            GGUFError: the blob is no valid model.
        """
        path = self.blobs.path(model.digest)
        if details is None:
            details = describe_gguf(path)
        documents = [("license", text) for text in licenses]
        documents += [(kind, text) for kind, text in (("template", template), ("system", system)) if text]
        if params:
            documents.append(("params", json.dumps(dict(params), separators=(",", ":"), ensure_ascii=False)))
        with self.lock():
            old = self._digests_of(name)
            layers = [Layer(f"{LAYER_PREFIX}model", model.digest, model.size)]
            layers += [self._add_layer(f"{LAYER_PREFIX}{kind}", text.encode()) for kind, text in documents]
            description = details.to_bytes(layers=tuple(layer.digest for layer in layers))
            config = self._add_layer(CONFIG_MEDIA_TYPE, description)
            if self.blobs.find(model.digest) is None:
                raise StoreError(f"{path}: the blob was removed by another process; pull the model again")
            self.manifests.write(name, Manifest(config, tuple(layers)))
            self._drop_replaced(old)
        return self.get(name)

    def remove(self, name: Name) -> Name:
        """Delete a model and those of its blobs that no other model uses; gives the name as it was stored.

        Raises:
            ModelNotFoundError: there is none of that name.
        """
        with self.lock():
            stored = self.manifests.resolve(name)
            old = self._digests_of(stored)
            self.manifests.remove(stored)
            self._drop_unreferenced(old)
        return stored

    def write_manifest(self, name: Name, data: bytes) -> Sequence[str]:
        """Give a name to blobs that are in the store; what the name meant before is replaced.

        Args:
            name: The name; a stored spelling that differs only by case is kept.
            data: The JSON of the manifest, stored as it is.

        Returns:
            The digests of blobs that no model uses any more; they are gone.

        Raises:
            StoreError: it is no manifest of a model, or one of its blobs is not in the store.
        """
        manifest = parse_manifest(data)
        with self.lock():
            for layer in (manifest.config, *manifest.layers):
                self._blob_path(name.display, layer)
            self._model(name, manifest)  # what could not be read later gets no name
            old = self._digests_of(name)
            self.manifests.write_bytes(name, data)
            return self._drop_replaced(old)

    def copy(self, source: Name, destination: Name) -> None:
        """Give a model a second name; what the name meant before is replaced.

        Raises:
            ModelNotFoundError: there is no ``source``.
        """
        with self.lock():
            data = self.manifests.read_bytes(source)
            old = self._digests_of(destination)
            self.manifests.write_bytes(destination, data)
            self._drop_replaced(old)

    def prune(self) -> Sequence[str]:
        """Delete blobs that no model uses and that are older than an hour, and what was left of downloads a week
        ago.

        Returns:
            The digests of the blobs that are gone.

        Raises:
            StoreError: a manifest is damaged; what it needs is unknown, so nothing is deleted.
        """
        with self.lock():
            self.blobs.rename_first_form()
            used = self.manifests.digests()
            removed = self.blobs.drop_unused(used)
            self.blobs.drop_abandoned()
            self.manifests.drop_leftovers()
            self._drop_old_work()
        return removed

    @contextmanager
    def lock(self, key: str = "store", *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold a lock among all processes and threads that use this folder; one that holds it must not ask
        again.

        Args:
            key: What to lock: a file name without a folder.
            on_wait: Called once if another one holds the lock.
        """
        folder = self.work_folder() / "locks"
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if on_wait is not None:
                on_wait()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def work_folder(self) -> Path:
        """A folder for downloads under way, on the same disk; Ollama does not look into it."""
        folder = self.folder / ".pyggml"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _drop_old_work(self) -> None:
        """Delete what was left of downloads and conversions a week ago."""
        before = time.time() - _RESUMABLE_SECONDS
        for kind in ("downloads", "pull", "create"):
            folder = self.work_folder() / kind
            for path in folder.iterdir() if folder.is_dir() else ():
                with suppress(FileNotFoundError):  # another process was faster
                    if path.stat().st_mtime >= before:
                        continue
                    if path.is_dir():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        path.unlink()

    def _add_layer(self, media_type: str, data: bytes) -> Layer:
        blob = self.blobs.add_bytes(data)
        return Layer(media_type, blob.digest, blob.size)

    def _digests_of(self, name: Name) -> set[str]:
        # a damaged or absent manifest holds nothing that could be dropped
        with suppress(StoreError, LookupError):
            return self.manifests.read(name).digests
        return set()

    def _drop_replaced(self, digests: set[str]) -> Sequence[str]:
        return () if self._keep_unused else self._drop_unreferenced(digests)

    def _drop_unreferenced(self, digests: set[str]) -> Sequence[str]:
        if not digests:
            return ()
        for name in self.manifests.names():
            try:
                digests = digests - self.manifests.read(name).digests
            except StoreError:
                return ()  # what a damaged manifest needs is unknown: keep everything
        return tuple(digest for digest in sorted(digests) if self.blobs.remove(digest))

    def _details(self, manifest: Manifest) -> ModelDetails:
        path = self.blobs.path(manifest.config.digest)
        with suppress(FileNotFoundError, StoreError):
            return ModelDetails.parse(_read_text(path), label=str(path))
        return ModelDetails()

    def _blob_path(self, label: str, layer: Layer) -> Path:
        path = self.blobs.path(layer.digest)
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            raise StoreError(f"{label}: the blob {path} is missing; pull the model again") from None
        if size != layer.size:
            raise StoreError(f"{label}: the blob {path} has {size} bytes instead of {layer.size}; pull again")
        return path

    def _paths(self, label: str, manifest: Manifest, kind: str) -> Iterator[Path]:
        return (self._blob_path(label, layer) for layer in manifest.layers if layer.kind == kind)

    def _texts(self, label: str, manifest: Manifest, kind: str) -> tuple[str, ...]:
        paths = self._paths(label, manifest, kind)
        return tuple(_read_text(path).decode("utf-8", "replace") for path in paths)


def _read_text(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_MAX_TEXT + 1)
    if len(data) > _MAX_TEXT:
        raise StoreError(f"{path}: a text of more than {_MAX_TEXT} bytes is not read")
    return data


def _parse_json(label: str, kind: str, texts: tuple[str, ...], wanted: type) -> Any:
    if not texts:
        return None
    try:
        value = json.loads(texts[-1])
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{label}: the layer {kind!r} is damaged ({error})") from error
    if value is not None and not isinstance(value, wanted):
        raise StoreError(f"{label}: the layer {kind!r} is not a JSON {wanted.__name__}")
    return value
