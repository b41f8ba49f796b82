"""A handler runs as long as somebody listens."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

__all__ = ["while_listening"]


async def while_listening(request: Request, serve: Callable[[], Awaitable[None]]) -> None:
    """Read the request's body, then serve; when the client goes away, what serves is cancelled.

    Raises:
        Exception: what ``serve`` raises.
    """
    try:
        await request.body()
    except ClientDisconnect:
        return
    work = asyncio.ensure_future(serve())
    gone = asyncio.ensure_future(_until_gone(request.receive))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not work.done():
            work.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)
    if not work.cancelled():
        work.result()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
