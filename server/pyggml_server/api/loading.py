"""Tell a client how far its model is loaded while it waits."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

from pyggml_server.api.generation import Generator, Prepared
from pyggml_server.api.tasks import Task
from pyggml_server.scheduler import LoadProgress

__all__ = ["prepare_with_progress"]


async def prepare_with_progress(
    generator: Generator, task: Task, stack: AsyncExitStack
) -> AsyncGenerator[LoadProgress | Prepared, None]:
    """Prepare a task; what happens meanwhile comes first, the prepared task last.

    Args:
        generator: Prepares it.
        task: What is asked.
        stack: Ends the preparation's block when it is closed.
    """
    queue: asyncio.Queue[LoadProgress] = asyncio.Queue()
    context = generator.prepare(task, on_progress=queue.put_nowait)
    entering = asyncio.create_task(stack.enter_async_context(context))
    try:
        while not entering.done():
            getting = asyncio.create_task(queue.get())
            await asyncio.wait({entering, getting}, return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                yield getting.result()
            else:
                getting.cancel()
        while not queue.empty():
            yield queue.get_nowait()
        yield entering.result()
    finally:
        if not entering.done():
            entering.cancel()
            await asyncio.gather(entering, return_exceptions=True)
