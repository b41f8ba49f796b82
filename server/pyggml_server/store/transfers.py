"""Models under way, as the HTTP routes need them: asynchronous, with progress in Ollama's form."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from functools import partial
from secrets import token_hex
from typing import Any, Final

from pyggml_server.config import Config
from pyggml_server.errors import BadRequestError, TransferError
from pyggml_server.names import Name
from pyggml_server.registry import RegistrySettings
from pyggml_server.store.blobs import BlobWriter, parse_digest
from pyggml_server.store.create import create_model
from pyggml_server.store.fetch import RegistryFetcher
from pyggml_server.store.jobs import Jobs, ThreadReport
from pyggml_server.store.models import Store
from pyggml_server.store.progress import Progress, Report
from pyggml_server.store.pull import Puller
from pyggml_server.store.push import push_model
from pyggml_server.store.recipe import Recipe
from pyggml_server.store.sources import FileSource, resolve_source

__all__ = ["Transfers"]

_BATCH: Final = 1 << 20


class Transfers:
    """Pull, push, create and uploads. Requests for the same thing share one operation.

    Args:
        config: Settings.
        store: Where models come to.
        settings: How registries are spoken to.
    """

    def __init__(self, config: Config, store: Store, *, settings: RegistrySettings | None = None) -> None:
        self._config: Final = config
        self._store: Final = store
        self._jobs: Final = Jobs()
        self._settings: Final = settings or RegistrySettings.from_environment()
        self._fetcher: Final = RegistryFetcher(store, self._settings)

    def pull(self, name: str, *, insecure: bool = False) -> AsyncGenerator[dict[str, Any], None]:
        """Fetch a model.

        Args:
            name: What the client asks for.
            insecure: Speak plain HTTP where the host has nothing else, and check no certificates.

        Raises:
            ServerError: while iterating; it could not be fetched.
        """

        async def work(publish: Report) -> None:
            await self._pull(name, insecure=insecure, publish=publish)

        return _as_json(self._jobs.watch(f"pull {insecure} {name}", work))

    async def _pull(self, text: str, *, insecure: bool, publish: Report) -> None:
        resolved = resolve_source(text)
        if any(isinstance(source, FileSource) for source in resolved.sources):
            raise BadRequestError(
                f"{text[:200]!r} is a path; files are pulled with the command line, not with requests"
            )
        if resolved.sources:
            try:
                await ThreadReport(publish).run(lambda report: Puller(self._store).pull(text, report=report))
                return
            except TransferError as error:
                if resolved.is_package:
                    raise
                publish(Progress(f"{error}; trying the registry"))
        await self._fetcher.fetch(resolved.name, insecure=insecure, publish=publish)

    def push(self, name: str, *, insecure: bool = False) -> AsyncGenerator[dict[str, Any], None]:
        """Send a model of the store to the registry that its name tells.

        Args:
            name: The model.
            insecure: Speak plain HTTP where the host has nothing else, and check no certificates.

        Raises:
            ServerError: while iterating; the store lacks it, or the registry does not take it.
        """
        target = Name.parse(name)

        async def work(publish: Report) -> None:
            await push_model(self._store, target, settings=self._settings, insecure=insecure, publish=publish)

        return _as_json(self._jobs.watch(f"push {insecure} {name}", work))

    async def create(self, request: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Make a model.

        Args:
            request: The JSON of ``/api/create``. A model that it starts from and that the store lacks is pulled.

        Raises:
            ServerError: while iterating; the request cannot be served.
            PyggmlError: while iterating; a file is damaged.
        """
        recipe = Recipe.parse(request)

        async def work(publish: Report) -> None:
            if recipe.base is not None and not await asyncio.to_thread(self._store.has, recipe.base):
                scheme = "http://" if recipe.base.scheme == "http" else ""
                text = f"{scheme}{recipe.base.host}/{recipe.base.namespace}/{recipe.base.model}:{recipe.base.tag}"
                await self._pull(text, insecure=False, publish=publish)
            await ThreadReport(publish).run(partial(create_model, self._store, recipe))

        # two requests for the same name are two models, so each has a key of its own
        async with aclosing(_as_json(self._jobs.watch(f"create {token_hex(16)}", work))) as events:
            async for event in events:
                yield event

    async def add_blob(self, digest: str, chunks: AsyncIterator[bytes]) -> bool:
        """Store an upload.

        Args:
            digest: What its content must hash to.
            chunks: The content.

        Returns:
            False if it was there already; nothing was read then.

        Raises:
            DigestMismatchError: the content is another.
            StoreError: the digest is malformed, or the disk is full.
        """
        digest = parse_digest(digest)
        if await asyncio.to_thread(self._store.blobs.find, digest) is not None:
            return False
        with self._store.blobs.writer() as writer:
            await _write(writer, chunks)
            await asyncio.to_thread(writer.commit, expected=digest)
        return True


async def _as_json(news: AsyncGenerator[Progress, None]) -> AsyncGenerator[dict[str, Any], None]:
    async with aclosing(news):
        async for progress in news:
            yield progress.as_json()


async def _write(writer: BlobWriter, chunks: AsyncIterator[bytes]) -> None:
    batch = bytearray()
    async for chunk in chunks:
        batch += chunk
        if len(batch) >= _BATCH:
            await asyncio.to_thread(writer.write, bytes(batch))
            batch.clear()
    await asyncio.to_thread(writer.write, bytes(batch))
