"""The running server, as commands talk to it."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from pyggml_server.config import Config
from pyggml_server.errors import ServerError

__all__ = ["NoServerError", "ReplyError", "open_client", "request_json"]


class NoServerError(ServerError):
    """No server answers."""


class ReplyError(ServerError):
    """The server answered with an error.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


@contextmanager
def open_client(config: Config | None = None) -> Iterator[httpx2.Client]:
    """A client of the server at ``OLLAMA_HOST``, with the key of ``PYGGML_API_KEY``.

    Raises:
        NoServerError: within the block, when nothing answers.
    """
    config = config or Config.from_environment()
    url = config.host.client_url
    headers = {"Authorization": f"Bearer {config.api_key}"} if config.api_key else {}
    verify: ssl.SSLContext | bool = True
    if config.tls_certificate is not None:  # the server's own certificate may be signed by nobody
        verify = ssl.create_default_context(cafile=str(config.tls_certificate))
    with httpx2.Client(base_url=url, headers=headers, verify=verify, timeout=None, trust_env=False) as client:
        try:
            yield client
        except httpx2.TransportError as error:
            raise NoServerError(
                f"could not connect to the server at {url} ({error}); run 'pyggml serve' to start it"
            ) from error


def request_json(client: httpx2.Client, method: str, path: str, **fields: Any) -> Any:
    """One request, its answer as JSON; ``fields`` are the body.

    Raises:
        ReplyError: the server refused.
    """
    reply = client.request(method, path, json=fields or None)
    try:
        document = reply.json()
    except ValueError:
        document = None
    if reply.status_code >= 400:
        text = document.get("error") if isinstance(document, dict) else None
        raise ReplyError(str(text or reply.text or f"status {reply.status_code}"), status=reply.status_code)
    return document
