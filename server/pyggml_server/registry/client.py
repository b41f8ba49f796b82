"""One repository of a registry that speaks the OCI distribution protocol, as Ollama's and Hugging Face's do."""

import asyncio
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import httpx2

from pyggml import __version__
from pyggml_server.errors import ModelNotFoundError, TransferError
from pyggml_server.names import Name
from pyggml_server.registry.auth import Authenticator, parse_challenge
from pyggml_server.registry.settings import RegistrySettings

__all__ = ["MANIFEST_TYPE", "RefusedError", "Repository", "retry", "trusted_tls"]

MANIFEST_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"
_ACCEPT: Final = f"{MANIFEST_TYPE}, application/vnd.oci.image.manifest.v1+json"
_MAX_MANIFEST: Final = 4 << 20
_MAX_REDIRECTS: Final = 5
_CONNECTS: Final = 2
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
# where a host in a name is not the one that serves
_REGISTRIES: Final = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}


class RefusedError(TransferError):
    """A registry answered with an error.

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status

    @property
    def temporary(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in _AGAIN


async def retry(settings: RegistrySettings, work: Callable[[], Awaitable[Any]]) -> Any:
    """Run ``work`` until it succeeds; pauses double after each failure that may pass by itself.

    Raises:
        TransferError: the last failure.
    """
    for attempt in range(settings.attempts):
        try:
            return await work()
        except RefusedError as error:
            if not error.temporary or attempt == settings.attempts - 1:
                raise
        except (httpx2.TransportError, TimeoutError) as error:
            # where nobody listens, somebody waits for the error
            enough = _CONNECTS if isinstance(error, httpx2.ConnectError) else settings.attempts
            if attempt + 1 >= enough or isinstance(error, httpx2.UnsupportedProtocol):
                raise TransferError(f"{_host(error)} cannot be reached: {describe(error)}") from error
        await asyncio.sleep(settings.backoff * 2**attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")


def trusted_tls() -> ssl.SSLContext:
    """Certificates are checked against those that the system trusts (or ``SSL_CERT_FILE``). Takes 60 ms to make."""
    return httpx2.create_ssl_context()


class Repository:
    """A model's repository, with the connections to it.

    Args:
        client: The connections.
        origin: Scheme, host and port.
        name: The model.
        settings: Sizes and patience.
    """

    def __init__(self, client: httpx2.AsyncClient, origin: httpx2.URL, name: Name, settings: RegistrySettings) -> None:
        self.client: Final = client
        self.origin: Final = origin
        self.name: Final = name
        self.settings: Final = settings
        self.base: Final = origin.copy_with(path=f"/v2/{name.namespace}/{name.model}/")
        """The URL in front of ``manifests/`` and ``blobs/``."""
        self._auth: Final = Authenticator(origin, settings)
        self._auth_lock: Final = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, name: Name, settings: RegistrySettings, *, insecure: bool, tls: ssl.SSLContext | None = None
    ) -> AsyncIterator[Self]:
        """Open a repository.

        Args:
            name: The model; its scheme counts.
            settings: Sizes and patience.
            insecure: Allow HTTP, and certificates that nobody vouches for.
            tls: What :func:`trusted_tls` gave, where there are many connections; not used with ``insecure``.

        Raises:
            TransferError: HTTP is asked for and not allowed.
        """
        timeout = httpx2.Timeout(settings.stall, connect=settings.connect, pool=None)
        client = httpx2.AsyncClient(
            timeout=timeout,
            verify=False if insecure else tls or trusted_tls(),
            headers={"User-Agent": f"pyggml/{__version__}"},
            limits=httpx2.Limits(max_connections=settings.streams + 4),
        )
        async with client:
            yield cls(client, await _origin(client, name, insecure=insecure), name, settings)

    def url(self, path: str) -> httpx2.URL:
        """The URL of a path of this repository."""
        return self.base.join(path)

    async def send(
        self,
        method: str,
        url: httpx2.URL,
        *,
        headers: Mapping[str, str] | None = None,
        content: Callable[[], AsyncIterator[bytes]] | bytes | None = None,
        stream: bool = False,
    ) -> httpx2.Response:
        """One request; a challenge of the registry is answered. Redirects are not followed.

        Raises:
            TransferError: the challenge cannot be answered.
            httpx2.TransportError: there is no answer.
        """
        used = self._auth.header
        response = await self._send_once(method, url, headers, content, stream=stream)
        challenge = response.headers.get("WWW-Authenticate")
        if response.status_code != 401 or challenge is None or not self._is_home(url):
            return response
        await response.aclose()
        async with self._auth_lock:
            if self._auth.header == used:  # otherwise somebody answered while this one waited
                await self._auth.answer(self.client, parse_challenge(challenge))
        response = await self._send_once(method, url, headers, content, stream=stream)
        if response.status_code == 401:
            await response.aclose()
            raise RefusedError(f"{self.origin.host}: it does not accept who we say we are", status=401)
        return response

    async def _send_once(
        self,
        method: str,
        url: httpx2.URL,
        headers: Mapping[str, str] | None,
        content: Callable[[], AsyncIterator[bytes]] | bytes | None,
        *,
        stream: bool,
    ) -> httpx2.Response:
        own = dict(headers or {})
        if self._auth.header is not None and self._is_home(url):
            own["Authorization"] = self._auth.header
        body = content() if callable(content) else content
        request = self.client.build_request(method, url, headers=own, content=body)
        return await self.client.send(request, stream=stream, follow_redirects=False)

    def _is_home(self, url: httpx2.URL) -> bool:
        return (url.scheme, url.netloc) == (self.origin.scheme, self.origin.netloc)

    async def fetch_manifest(self) -> bytes:
        """The manifest as it stands in the registry.

        Raises:
            ModelNotFoundError: there is no such model.
            TransferError: the registry refuses, or sends no manifest.
        """

        async def fetch() -> bytes:
            response = await self.follow("GET", self.url(f"manifests/{self.name.tag}"), headers={"Accept": _ACCEPT})
            try:
                if response.status_code == 404:
                    raise ModelNotFoundError(f"pull model manifest: file does not exist: {self.name.display}")
                await check(response)
                data = await read_limited(response, _MAX_MANIFEST)
                _check_digest(data, response.headers.get("Docker-Content-Digest"))
                return data
            finally:
                await response.aclose()

        data: bytes = await retry(self.settings, fetch)
        return data

    async def has_blob(self, digest: str) -> bool:
        """Whether a blob is there."""

        async def ask() -> bool:
            response = await self.send("HEAD", self.url(f"blobs/{digest}"))
            if response.status_code == 404:
                return False
            if response.status_code >= 400:
                await check(response)
            return True

        found: bool = await retry(self.settings, ask)
        return found

    async def follow(
        self, method: str, url: httpx2.URL, *, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """A request whose redirects are followed; the answer streams. Our authorization stays at the registry.

        Raises:
            TransferError: too many redirects, or one from HTTPS to HTTP.
        """
        for _ in range(_MAX_REDIRECTS):
            response = await self.send(method, url, headers=headers, stream=True)
            if response.status_code not in (301, 302, 303, 307, 308):
                return response
            await response.aclose()
            target = url.join(response.headers.get("Location", ""))
            if target.scheme not in ("http", "https") or (url.scheme == "https" and target.scheme == "http"):
                raise TransferError(f"{url.host}: it redirects to {target.scheme}://{target.host}, which is not safe")
            url = target
        raise TransferError(f"{self.origin.host}: it redirects again and again")


def _host(error: Exception) -> str:
    request = getattr(error, "_request", None)  # the property raises where there is none
    return request.url.netloc.decode() if isinstance(request, httpx2.Request) else "the registry"


async def check(response: httpx2.Response) -> None:
    """Raise what the registry says, where the status is none of success.

    Raises:
        RefusedError: with the registry's own words.
    """
    if response.status_code < 300:
        return
    try:
        document = json.loads(await read_limited(response, 1 << 16))
        first = (document.get("errors") or [document])[0]
        words = str(first.get("message") or first.get("error") or first.get("code") or "")
    except (ValueError, AttributeError, TypeError, LookupError, TransferError, httpx2.TransportError):
        words = ""
    where = f"{response.request.method} {response.request.url.copy_with(query=None)}"
    raise RefusedError(f"{where}: status {response.status_code} {words[:300]}".rstrip(), status=response.status_code)


async def read_limited(response: httpx2.Response, limit: int) -> bytes:
    """The body, where it is not longer than ``limit``.

    Raises:
        TransferError: it is longer.
    """
    data = bytearray()
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > limit:
            raise TransferError(f"{response.request.url.host}: an answer of more than {limit} bytes is not read")
    return bytes(data)


def describe(error: Exception) -> str:
    """An exception in one line; those of connections are often empty."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _check_digest(data: bytes, expected: str | None) -> None:
    if expected is None or not expected.startswith("sha256:"):
        return
    actual = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if actual != expected:
        raise RefusedError(f"the manifest has the digest {actual}, the registry says {expected}", status=502)


async def _origin(client: httpx2.AsyncClient, name: Name, *, insecure: bool) -> httpx2.URL:
    """Scheme and host: HTTPS, or HTTP if the name says so or (with ``insecure``) the host has nothing else."""
    url = httpx2.URL(f"{name.scheme}://{_REGISTRIES.get(name.host.lower(), name.host)}")
    if name.scheme == "http":
        if not insecure and url.host not in _LOCAL:
            raise TransferError(f'insecure protocol http: {name.host} is asked without encryption only with "insecure"')
        return url
    if not insecure:
        return url
    try:
        await client.get(url.copy_with(path="/v2/"), follow_redirects=False)
    except (httpx2.ConnectError, httpx2.ProtocolError):
        return url.copy_with(scheme="http")
    except httpx2.TransportError:
        return url
    return url
