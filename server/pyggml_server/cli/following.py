"""Runs transfers for commands: what they tell is drawn."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from pyggml_server.cli.progress import show_progress
from pyggml_server.cli.storing import open_store
from pyggml_server.config import Config
from pyggml_server.store import Progress, Store, Transfers

__all__ = ["follow"]


def follow(start: Callable[[Transfers], AsyncGenerator[dict[str, Any], None]]) -> Store:
    """Run a transfer to its end.

    Args:
        start: Begins it.

    Returns:
        The store, for a look at what came.

    Raises:
        ServerError: it failed.
    """
    config = Config.from_environment()
    store = open_store(config)

    async def run() -> None:
        async with aclosing(start(Transfers(config, store))) as events:
            async for event in events:
                news = Progress(event["status"], event.get("completed", 0), event.get("total"), event.get("digest", ""))
                report(news)

    with show_progress() as report:
        asyncio.run(run())
    return store
