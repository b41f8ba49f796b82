"""Bounds on the heads of requests (line and headers), which uvicorn's fast parser takes at any length and pace."""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["BoundedHeads"]

_LONGEST: Final = 2**20
"""Bytes of a head; Go's limit, and so Ollama's."""

_PATIENCE: Final = 60.0
"""Seconds from the connection, or a request's first byte, to the end of its head."""


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's protocol; a client whose head is too long is told so (431), one that never ends it is cut off."""

    _length = 0
    _in_head = True
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client has come."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._length, self._in_head = 0, True
        if self._timer is None:
            self._wait()

    def on_headers_complete(self) -> None:
        """The end of a head."""
        self._in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        super().data_received(data)
        if self._in_head:
            self._length += len(data)
            if self._length > _LONGEST and not self.transport.is_closing():
                self.transport.write(
                    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                )
                self.transport.close()

    def _wait(self) -> None:
        self._timer = self.loop.call_later(_PATIENCE, self._too_late)

    def _too_late(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait()  # it waits for an answer itself, and what it sends meanwhile may not be read
        else:
            self.transport.close()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
