"""The runner's end of the socket."""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

from pyggml_server.protocol import (
    VERSION,
    FrameError,
    FrameReader,
    Hello,
    Metrics,
    Ping,
    Pong,
    Shutdown,
    ToRunner,
    pack,
)
from pyggml_server.runner.engine_thread import EngineThread

__all__ = ["Link"]

log = logging.getLogger("pyggml.runner")


class Link(asyncio.Protocol):
    """Answers what needs no engine at once, and hands the rest to the engine's thread.

    Args:
        on_end: Called once, when the service asks for the end or has gone.
    """

    def __init__(self, *, on_end: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._reader = FrameReader(ToRunner)
        self._transport: asyncio.WriteTransport | None = None
        self.engine = EngineThread(self._send_from_thread)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        transport.write(pack([Hello(VERSION, os.getpid())]))

    def data_received(self, data: bytes) -> None:
        """Take what arrived; nonsense ends the process, for the service cannot be understood any more."""
        try:
            for message in self._reader.feed(data):
                self._take(message)
        except FrameError as error:
            log.error("the service sent %s", error)
            self._on_end()

    def _take(self, message: Any) -> None:
        if isinstance(message, Ping):
            self._write([Pong(message.id, self.engine.state)])
        elif isinstance(message, Metrics):
            self._write([self.engine.metrics(message.id)])
        elif isinstance(message, Shutdown):
            self._on_end()
        elif isinstance(message, Hello):
            if message.version != VERSION:
                raise FrameError(f"version {message.version} of the protocol, this is {VERSION}")
        else:
            self.engine.put(message)

    def connection_lost(self, exc: Exception | None) -> None:
        """The service has gone: nobody is left to answer."""
        self._transport = None
        self._on_end()

    def _send_from_thread(self, messages: Sequence[Any]) -> None:
        """One write for all that a step gave."""
        data = pack(messages)
        self._loop.call_soon_threadsafe(self._write_bytes, data)

    def _write(self, messages: Sequence[Any]) -> None:
        self._write_bytes(pack(messages))

    def _write_bytes(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
