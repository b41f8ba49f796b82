"""Models on their way to a registry."""

import asyncio
import json
from contextlib import suppress
from typing import Final

from pyggml_server.errors import InvalidNameError
from pyggml_server.names import Name
from pyggml_server.registry import MANIFEST_TYPE, RegistrySettings, Repository, Upload, push_manifest
from pyggml_server.store.manifests import Layer, parse_manifest
from pyggml_server.store.models import Store
from pyggml_server.store.progress import Progress, Report

__all__ = ["push_model"]

_MOUNTS: Final = 2


async def push_model(store: Store, name: Name, *, settings: RegistrySettings, insecure: bool, publish: Report) -> None:
    """Send a model: the blobs that the registry lacks, then the manifest.

    Args:
        store: Where it is.
        name: Its name; host and repository are where it goes.
        settings: Sizes and patience.
        insecure: Allow HTTP, and certificates that nobody vouches for.
        publish: Receives the progress.

    Raises:
        ModelNotFoundError: the store lacks it.
        StoreError: one of its blobs is missing.
        TransferError: the registry refuses it, or does not answer.
    """
    publish(Progress("retrieving manifest"))
    data = await asyncio.to_thread(store.manifests.read_bytes, name)
    manifest = parse_manifest(data)
    await asyncio.to_thread(store.get, name)  # a model with damage is not sent
    sources = await asyncio.to_thread(_sources, store, name, data)
    async with Repository.connect(name, settings, insecure=insecure) as repository:
        layers = {layer.digest: layer for layer in (*manifest.layers, manifest.config)}
        for layer in layers.values():
            await _push_blob(store, repository, layer, sources.get(layer.digest, []), publish)
        publish(Progress("pushing manifest"))
        await push_manifest(repository, data, media_type=str(json.loads(data).get("mediaType") or MANIFEST_TYPE))
    publish(Progress("success"))


async def _push_blob(store: Store, repository: Repository, layer: Layer, mounts: list[str], publish: Report) -> None:
    status = f"pushing {layer.digest.removeprefix('sha256:')[:12]}"

    def progress(n: int) -> None:
        publish(Progress(status, n, layer.size, layer.digest))

    progress(0)
    await Upload(repository, layer.digest, store.blobs.path(layer.digest), progress).run(mounts=mounts[:_MOUNTS])


def _sources(store: Store, name: Name, data: bytes) -> dict[str, list[str]]:
    """Digest → other repositories of the same registry that have it, as far as this store and the manifest know."""
    own, found = (name.namespace.lower(), name.model.lower()), dict[str, list[str]]()

    def add(other: Name, digest: str) -> None:
        place = f"{other.namespace}/{other.model}"
        if other.host.lower() == name.host.lower() and (other.namespace.lower(), other.model.lower()) != own:
            found.setdefault(digest, [])
            if place not in found[digest]:
                found[digest].append(place)

    for layer in json.loads(data).get("layers") or []:
        with suppress(InvalidNameError):  # Ollama writes where it has a layer from
            if isinstance(source := layer.get("from"), str) and source:
                add(Name.parse(source), layer["digest"])
    for other, manifest in store.manifests.all():
        for digest in manifest.digests:
            add(other, digest)
    return found
