"""User names and passwords of registries, where ``docker login`` keeps them: docker's file, or a helper that it names.

The protocol of the helpers is docker's: a program ``docker-credential-NAME`` that reads a host and writes JSON.
"""

import asyncio
import base64
import binascii
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pyggml_server.errors import TransferError

__all__ = ["find_password"]

_log: Final = logging.getLogger(__name__)

# under which names the file keeps what belongs to Docker Hub, whatever its registry is called
_HUB: Final = ("https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io")
_HUB_HOSTS: Final = frozenset(_HUB[1:])
_HELPER_SECONDS: Final = 20.0


async def find_password(path: Path, host: str) -> str | None:
    """``base64(user:password)`` for a registry; None where there is none.

    Args:
        path: Docker's ``config.json``.
        host: The registry: ``host`` or ``host:port``.

    Raises:
        TransferError: the file cannot be read.
    """
    try:
        document = _read(path)
        keys = _HUB if host in _HUB_HOSTS else (host, f"https://{host}", f"http://{host}")
        own = _section(document, "credHelpers")
        helper = next((own[key] for key in keys if key in own), document.get("credsStore"))
        found = _entry(_section(document, "auths"), keys)
        if found is None and isinstance(helper, str) and helper:
            found = await _ask_helper(helper, keys[0])
        return found
    except (ValueError, TypeError, AttributeError, binascii.Error, RecursionError) as error:
        raise TransferError(f"{path}: cannot be read ({error})") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    if not isinstance(document, dict):
        raise TypeError("it is no JSON object")
    return document


def _section(document: dict[str, Any], name: str) -> dict[str, Any]:
    section = document.get(name) or {}
    if not isinstance(section, dict):
        raise TypeError(f"{name} is no object")
    return section


def _entry(entries: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    """The entry of a host; docker's older versions write a path behind it."""
    named = {key: _host_of(key) for key in entries}
    exact = [key for key in keys if key in entries]
    for key in [*exact, *(key for key, host in named.items() if host in keys)]:
        text = str((entries[key] or {}).get("auth") or "")
        if b":" in base64.b64decode(text, validate=True):
            return text
    return None


def _host_of(key: str) -> str:
    return key.partition("://")[2].partition("/")[0] if "://" in key else key.partition("/")[0]


async def _ask_helper(name: str, server: str) -> str | None:
    """What a helper knows of a server; None where it knows nothing, or cannot be asked: many need no password."""
    program = f"docker-credential-{name}"
    try:
        if "/" in name or "\0" in name:
            raise ValueError("this is not the name of a program")
        async with asyncio.timeout(_HELPER_SECONDS):
            status, output = await _run(program, server)
        if status:
            return None  # by the protocol: it has none for this server
        answer = json.loads(output)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        _log.warning("%s, which docker's file names, gave no password for %s: %r", program, server, error)
        return None
    # this user name says that the secret is a token for another protocol (OAuth 2)
    return None if user == "<token>" else base64.b64encode(f"{user}:{secret}".encode()).decode()


async def _run(program: str, text: str) -> tuple[int | None, bytes]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(program, "get", stdin=pipe, stdout=pipe)
    try:
        output, _ = await process.communicate(text.encode())
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return process.returncode, output
