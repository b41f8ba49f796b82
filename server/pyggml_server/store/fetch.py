"""Models from registries: the manifest, the blobs that are missing, the name."""

import asyncio
import hashlib
import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Final

from filelock import FileLock, Timeout

from pyggml_server.errors import DigestMismatchError, StoreError, TransferError
from pyggml_server.names import Name
from pyggml_server.registry import (
    Download,
    DownloadState,
    HubFile,
    RefusedError,
    RegistrySettings,
    Repository,
    find_shards,
    trusted_tls,
)
from pyggml_server.store.create import create_model
from pyggml_server.store.jobs import Jobs, ThreadReport
from pyggml_server.store.manifests import Layer, parse_manifest
from pyggml_server.store.models import Store
from pyggml_server.store.progress import Progress, Report
from pyggml_server.store.recipe import Recipe, SourceFile

__all__ = ["RegistryFetcher"]

_CHUNK: Final = 1 << 20
_POLL: Final = 0.2


class RegistryFetcher:
    """Brings models out of registries into a store.

    A blob is fetched once, however many models that are pulled at the same time contain it; what has
    arrived when a pull ends early serves the next one.

    Args:
        store: Where the models go.
        settings: Sizes and patience.
    """

    def __init__(self, store: Store, settings: RegistrySettings) -> None:
        self._store: Final = store
        self._settings: Final = settings
        self._blobs: Final = Jobs()

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return trusted_tls()

    async def fetch(self, name: Name, *, insecure: bool, publish: Report) -> None:
        """Fetch a model.

        Args:
            name: Host, repository and tag; also its name in the store.
            insecure: Allow HTTP, and certificates that nobody vouches for.
            publish: Receives the progress.

        Raises:
            ModelNotFoundError: the registry has no such model.
            TransferError: the registry refuses, or does not answer.
            DigestMismatchError: a blob is not what the manifest says, twice.
        """
        publish(Progress("pulling manifest"))
        shards = list[HubFile]()
        async with Repository.connect(name, self._settings, insecure=insecure) as repository:
            try:
                data = await repository.fetch_manifest()
            except RefusedError as error:
                if name.host not in self._settings.hubs or "shard" not in str(error).lower():
                    raise
                shards = await find_shards(repository)
        if shards:
            await self._fetch_shards(name, shards, insecure=insecure, publish=publish)
            return
        layers = _layers(name, data)
        places = {layer: f"/v2/{name.namespace}/{name.model}/blobs/{layer.digest}" for layer in layers}
        await self._fetch_blobs(name, places, insecure=insecure, publish=publish)
        publish(Progress("writing manifest"))
        if await asyncio.to_thread(self._store.write_manifest, name, data):
            publish(Progress("removing unused layers"))
        publish(Progress("success"))

    async def _fetch_shards(self, name: Name, shards: list[HubFile], *, insecure: bool, publish: Report) -> None:
        """Fetch the files of a split model and join them."""
        base = f"/{name.namespace}/{name.model}/resolve/main"
        places = {Layer("", shard.digest, shard.size): f"{base}/{shard.path}" for shard in shards}
        await self._fetch_blobs(name, places, insecure=insecure, publish=publish)
        files = tuple(SourceFile(PurePosixPath(shard.name), shard.digest) for shard in shards)
        await ThreadReport(publish).run(partial(create_model, self._store, Recipe(name=name, files=files)))
        await asyncio.to_thread(self._store.drop_unused, [shard.digest for shard in shards])

    async def _fetch_blobs(self, name: Name, places: Mapping[Layer, str], *, insecure: bool, publish: Report) -> None:
        """Fetch what the store lacks, then check it; both are shared with others who want the same blob."""
        for layer, place in places.items():
            await self._share(f"fetch {layer.digest}", partial(self._fetch_blob, name, insecure, layer, place), publish)
        publish(Progress("verifying sha256 digest"))
        damage: DigestMismatchError | None = None
        for layer in places:  # all of them: what is wrong goes, so that the next try fetches it
            try:
                await self._share(f"keep {layer.digest}", partial(self._keep_blob, layer), publish)
            except DigestMismatchError as error:
                damage = damage or error
        if damage is not None:
            raise damage

    async def _share(self, key: str, work: Callable[[Report], Awaitable[None]], publish: Report) -> None:
        async with aclosing(self._blobs.watch(key, work)) as news:
            async for progress in news:
                publish(progress)

    async def _fetch_blob(self, name: Name, insecure: bool, layer: Layer, place: str, publish: Report) -> None:
        """Bring all bytes of a blob into the folder of downloads."""
        status = f"pulling {layer.digest.removeprefix('sha256:')[:12]}"

        def progress(n: int) -> None:
            publish(Progress(status, n, layer.size, layer.digest))

        path = self._download_path(layer)
        async with _alone(path, lambda: publish(Progress(f"{status}: another pull does"))):
            if self._has(layer) or layer.size == 0:
                progress(layer.size)
                return
            _check_space(path, layer.size)
            state = DownloadState(path, layer.size, self._settings.part_size(layer.size))
            progress(state.done)
            if state.done == layer.size:
                return
            # own connections: those of the pull that began this may be closed before others are done
            async with Repository.connect(name, self._settings, insecure=insecure, tls=self._tls) as repository:
                await Download(repository, repository.origin.copy_with(path=place), state, progress).run()

    async def _keep_blob(self, layer: Layer, publish: Report) -> None:
        """Make a complete download a blob, if it is what it should be.

        Raises:
            DigestMismatchError: it is not; it is gone then.
        """
        path = self._download_path(layer)
        async with _alone(path, lambda: None):
            if self._has(layer):
                return
            if layer.size == 0:
                await asyncio.to_thread(self._store.blobs.add_bytes, b"")
                return
            state = DownloadState(path, layer.size, self._settings.part_size(layer.size))
            if state.done != layer.size:
                raise TransferError(f"{layer.digest}: another process took the download away: pull again")
            await self._verify(state, layer)

    def _download_path(self, layer: Layer) -> Path:
        folder = self._store.work_folder() / "downloads"
        folder.mkdir(exist_ok=True)
        return folder / layer.digest.replace(":", "-")

    def _has(self, layer: Layer) -> bool:
        blob = self._store.blobs.find(layer.digest)
        return blob is not None and blob.size == layer.size

    async def _verify(self, state: DownloadState, layer: Layer) -> None:
        actual = ""

        def work(report: Report) -> None:
            nonlocal actual
            actual = _hash(state.path, report)

        await ThreadReport(lambda _: None).run(work)
        if actual != layer.digest:
            state.drop()
            raise DigestMismatchError(
                f"digest mismatch, file must be downloaded again: want {layer.digest}, got {actual}"
            )
        await asyncio.to_thread(self._keep, state, layer)

    def _keep(self, state: DownloadState, layer: Layer) -> None:
        state.flush()
        self._store.blobs.adopt(state.path, layer.digest)
        state.drop()


def _layers(name: Name, data: bytes) -> list[Layer]:
    """The blobs that a manifest of a registry names, each once."""
    try:
        manifest = parse_manifest(data)
    except StoreError as error:
        raise TransferError(f"{name.display}: {error}") from error
    if not any(layer.kind == "model" for layer in manifest.layers):
        raise TransferError(f"{name.display}: the registry has it, but it is no model with GGUF weights")
    return list({layer.digest: layer for layer in (*manifest.layers, manifest.config)}.values())


def _hash(path: Path, report: Report) -> str:
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            report(Progress("", done))  # raises when nobody waits any more
    return f"sha256:{digest.hexdigest()}"


def _check_space(path: Path, size: int) -> None:
    """Refuse what cannot fit; also the sizes that a manifest makes up."""
    present = path.stat().st_blocks * 512 if path.exists() else 0
    free = shutil.disk_usage(path.parent).free
    if size > free + present:
        raise StoreError(f"{path.parent}: {size - present:,} bytes are needed, {free:,} are free on this disk")


@asynccontextmanager
async def _alone(path: Path, on_wait: Callable[[], None]) -> AsyncIterator[None]:
    """Hold the lock of a download among processes, without blocking the event loop."""
    lock = FileLock(path.with_name(f"{path.name}.lock"), thread_local=False)
    told = False
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            if not told:
                on_wait()
            told = True
            await asyncio.sleep(_POLL)
    try:
        yield
    finally:
        lock.release()
