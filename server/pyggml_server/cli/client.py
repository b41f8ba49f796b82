"""The running server, as commands talk to it."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from pyggml_server.config import Config, ConfigError
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
    url = config.server_url
    headers = {"Authorization": f"Bearer {config.api_key}"} if config.api_key else {}
    # SSL_CERT_FILE and SSL_CERT_DIR hold, as for other programs
    verify = ssl.create_default_context() if config.tls_certificate is None else _trusting(config.tls_certificate)
    with httpx2.Client(base_url=url, headers=headers, verify=verify, timeout=None, trust_env=False) as client:
        try:
            yield client
        except httpx2.TransportError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise NoServerError(
                    f"the certificate of the server at {url} is not trusted ({error}); have SSL_CERT_FILE name a file "
                    "with it or with who signed it, or where the server runs, set its PYGGML_TLS_ variables"
                ) from error
            raise NoServerError(
                f"could not connect to the server at {url} ({error}); run 'pyggml serve' to start it"
            ) from error


def _trusting(certificate: Path) -> ssl.SSLContext:
    """Trusts the first certificate of a file and no other, whoever signed it and whatever name it is for."""
    first, end, _ = certificate.read_text(encoding="ascii", errors="replace").partition("-----END CERTIFICATE-----")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # only who has its key can show it
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=first[first.find("-----BEGIN CERTIFICATE-----") :] + end + "\n")
    except ssl.SSLError as error:
        raise ConfigError(f"PYGGML_TLS_CERTIFICATE={certificate}: no certificate in PEM form") from error
    return context


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
