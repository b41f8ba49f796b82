"""Models under way, as the HTTP routes need them: asynchronous, with progress in Ollama's form."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

from pyggml_server.config import Config
from pyggml_server.store.blobs import BlobWriter, parse_digest
from pyggml_server.store.jobs import Jobs, ThreadReport
from pyggml_server.store.models import Store
from pyggml_server.store.progress import Report
from pyggml_server.store.pull import Puller

__all__ = ["Transfers"]

_BATCH: Final = 1 << 20


class Transfers:
    """Pull, push, create and uploads. Requests for the same thing share one operation.

    Args:
        config: Settings.
        store: Where models come to.
    """

    def __init__(self, config: Config, store: Store) -> None:
        self._config: Final = config
        self._store: Final = store
        self._jobs: Final = Jobs()

    def pull(self, name: str, *, insecure: bool = False) -> AsyncGenerator[dict[str, Any], None]:
        """Fetch a model.

        Args:
            name: What the client asks for.
            insecure: Speak plain HTTP where the host has nothing else, and check no certificates.

        Raises:
            ServerError: while iterating; it could not be fetched.
        """

        async def work(publish: Report) -> None:
            await ThreadReport(publish).run(lambda report: Puller(self._store).pull(name, report=report))

        return self._jobs.watch(f"pull {insecure} {name}", work)

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


async def _write(writer: BlobWriter, chunks: AsyncIterator[bytes]) -> None:
    batch = bytearray()
    async for chunk in chunks:
        batch += chunk
        if len(batch) >= _BATCH:
            await asyncio.to_thread(writer.write, bytes(batch))
            batch.clear()
    await asyncio.to_thread(writer.write, bytes(batch))
