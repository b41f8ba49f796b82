"""Who we are to a registry: token challenges (RFC 6750, the registry token protocol), Basic, Ollama's signatures."""

import base64
import hashlib
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from pyggml_server.errors import TransferError
from pyggml_server.registry.keys import SigningKey
from pyggml_server.registry.passwords import find_password
from pyggml_server.registry.settings import RegistrySettings

__all__ = ["Authenticator", "Challenge", "parse_challenge"]

_PARAMETER: Final = re.compile(r'([a-zA-Z][\w-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_OLLAMA_HOSTS: Final = frozenset({"registry.ollama.ai", "ollama.com"})
_OLLAMA_KEYS: Final = "https://ollama.com/settings/keys"
_EMPTY: Final = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a registry asks for: the scheme in lower case, and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenge(header: str) -> Challenge:
    """Read a ``WWW-Authenticate`` header (RFC 9110, 11.6.1)."""
    scheme, _, rest = header.strip().partition(" ")
    parameters = {
        key.lower(): re.sub(r"\\(.)", r"\1", quoted) or bare for key, quoted, bare in _PARAMETER.findall(rest)
    }
    return Challenge(scheme.lower(), parameters)


class Authenticator:
    """Answers the challenges of one registry.

    A password goes to the registry, and where its challenge says that tokens are given out: that is how the protocol
    works (Docker Hub's tokens come from another host than its blobs), and whoever can write the challenge could ask
    for the password himself. To another host it goes only encrypted. The signature of the user's own key goes to the
    registry's host and nowhere else.

    Args:
        origin: The registry.
        settings: Where keys and passwords are.
    """

    def __init__(self, origin: httpx2.URL, settings: RegistrySettings) -> None:
        self._origin: Final = origin
        self._settings: Final = settings
        self.header: str | None = None
        """The value of ``Authorization`` for the registry; None before a challenge."""

    async def answer(self, client: httpx2.AsyncClient, challenge: Challenge) -> None:
        """Fill :attr:`header` for what the registry asks for.

        Raises:
            TransferError: it cannot be answered: there is no password, or the registry grants no token.
        """
        if challenge.scheme not in ("basic", "bearer"):
            raise TransferError(
                f"{self._origin.host}: it asks for {challenge.scheme!r} authentication, which is unknown"
            )
        password = await find_password(self._settings.docker_config, self._origin.netloc.decode())
        if challenge.scheme == "bearer":
            self.header = f"Bearer {await self._token(client, challenge.parameters, password)}"
        elif password is None:
            raise TransferError(
                f"{self._origin.host}: a user name and a password are needed: "
                f"put them into {self._settings.docker_config}, as `docker login` does"
            )
        else:
            self.header = f"Basic {password}"

    async def _token(self, client: httpx2.AsyncClient, parameters: Mapping[str, str], password: str | None) -> str:
        url = self._realm(parameters)
        proof, hint = self._proof(url, password)
        headers = {} if proof is None else {"Authorization": proof}
        reply = await client.get(url, headers=headers, follow_redirects=False)
        if reply.status_code != 200:
            raise TransferError(f"{url.host}: no permission (status {reply.status_code}){hint}")
        try:
            document: Any = reply.json()
            token = document.get("token") or document.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str) or not token.isprintable():
            raise TransferError(f"{url.host}: its answer holds no token")
        return token

    def _proof(self, url: httpx2.URL, password: str | None) -> tuple[str | None, str]:
        """What shows a place of tokens who we are, and what to say when that does not suffice."""
        same_host = url.host == self._origin.host
        place = "" if same_host else f", where {self._origin.host} sends us for a token"
        if password is not None and (same_host or url.scheme == "https"):
            return f"Basic {password}", f"{place}: user name or password are wrong, or lack the right"
        if password is not None:
            return None, f"{place}, without encryption: so it gets no password"
        if not same_host:
            return None, f"{place}: put user name and password into {self._settings.docker_config} (`docker login`)"
        key = SigningKey.load(self._settings.key_folder)
        hint = f"; is this key known there? ssh-ed25519 {key.public}"
        if url.host in _OLLAMA_HOSTS:
            hint += f" (see {_OLLAMA_KEYS})"
        return key.authorization(f"GET,{url},{_EMPTY}".encode()), hint

    def _realm(self, parameters: Mapping[str, str]) -> httpx2.URL:
        try:
            url = httpx2.URL(parameters.get("realm", ""))
        except httpx2.InvalidURL:
            url = httpx2.URL()
        if url.scheme not in ("http", "https") or not url.host:
            raise TransferError(f"{self._origin.host}: its challenge names no place to get a token from")
        if self._origin.scheme == "https" and url.scheme != "https":
            raise TransferError(f"{self._origin.host}: it sends us to {url.host} for a token without encryption")
        query = [(name, parameters[name]) for name in ("service",) if name in parameters]
        query += [("scope", scope) for scope in parameters.get("scope", "").split()]
        query += [("ts", str(int(time.time()))), ("nonce", secrets.token_urlsafe(16))]
        merged = url.params
        for name, value in query:
            merged = merged.add(name, value)
        return url.copy_with(params=merged)
