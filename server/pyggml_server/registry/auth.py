"""Who we are to a registry: token challenges (RFC 6750, the registry token protocol), Basic, Ollama's signatures."""

import base64
import binascii
import hashlib
import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

from pyggml_server.errors import TransferError
from pyggml_server.registry.keys import SigningKey
from pyggml_server.registry.settings import RegistrySettings

__all__ = ["Authenticator", "Challenge", "parse_challenge"]

_PARAMETER: Final = re.compile(r'([a-zA-Z][\w-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
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
    """Answers the challenges of one registry. Nothing secret goes to any other host.

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
        if challenge.scheme == "basic":
            password = self._password()
            if password is None:
                raise TransferError(
                    f"{self._origin.host}: a user name and a password are needed: "
                    f"put them into {self._settings.docker_config}, as `docker login` does"
                )
            self.header = f"Basic {password}"
        elif challenge.scheme == "bearer":
            self.header = f"Bearer {await self._token(client, challenge.parameters)}"
        else:
            raise TransferError(
                f"{self._origin.host}: it asks for {challenge.scheme!r} authentication, which is unknown"
            )

    async def _token(self, client: httpx2.AsyncClient, parameters: Mapping[str, str]) -> str:
        url = self._realm(parameters)
        headers = {}
        same_host = url.host == self._origin.host
        if same_host and (password := self._password()) is not None:
            headers["Authorization"] = f"Basic {password}"
        elif same_host:
            key = SigningKey.load(self._settings.key_folder)
            headers["Authorization"] = key.authorization(f"GET,{url},{_EMPTY}".encode())
        reply = await client.get(url, headers=headers, follow_redirects=False)
        if reply.status_code != 200:
            raise TransferError(
                f"{url.host}: no permission (status {reply.status_code})"
                + (f"; is this key known there? ssh-ed25519 {key.public}" if same_host and not self._password() else "")
            )
        try:
            document: Any = reply.json()
            token = document.get("token") or document.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str) or not token.isprintable():
            raise TransferError(f"{url.host}: its answer holds no token")
        return token

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

    def _password(self) -> str | None:
        """``base64(user:password)`` for this registry, from docker's file."""
        return read_docker_password(self._settings.docker_config, self._origin.netloc.decode())


def read_docker_password(path: Path, host: str) -> str | None:
    """The entry of a host in docker's ``config.json``; None where there is none."""
    try:
        document = json.loads(path.read_bytes())
        entries = document.get("auths", {})
        entry = entries.get(host) or entries.get(f"https://{host}") or entries.get(f"http://{host}") or {}
        text = entry.get("auth") or ""
        if b":" not in base64.b64decode(text, validate=True):
            return None
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError, TypeError, binascii.Error, RecursionError) as error:
        raise TransferError(f"{path}: cannot be read ({error})") from error
    return str(text)
