"""All settings that come from the environment: one table, read once, loud about bad values."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, Final, Self

from pyggml_server.errors import ServerError

__all__ = ["SETTINGS", "Config", "ConfigError", "Host", "Setting"]


class ConfigError(ServerError, ValueError):
    """An environment variable holds a value that cannot be used."""


@dataclass(frozen=True, slots=True)
class Host:
    """Where the server listens and where clients find it."""

    scheme: str
    host: str
    port: int

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{name}:{self.port}"


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of the table: variable, field of :class:`Config`, default as text, parser, help."""

    variable: str
    field: str
    default: str
    parse: Callable[[str], Any]
    help: str


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of a process.

    Attributes:
        models: The folder of the model store (``OLLAMA_MODELS``).
        host: Address of the server (``OLLAMA_HOST``).
    """

    models: Path
    host: Host

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the settings; a variable that is unset or empty means the default.

        Raises:
            ConfigError: a value does not parse; the message names the variable.
        """
        environment = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for setting in SETTINGS:
            # Ollama trims blanks and quotes too; people write quotes into service files.
            text = environment.get(setting.variable, "").strip().strip("\"'").strip()
            try:
                values[setting.field] = setting.parse(text or setting.default)
            except ValueError as error:
                raise ConfigError(f"{setting.variable}={text!r}: {error}") from error
        return cls(**values)


def _parse_folder(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"the home folder cannot be found ({error})") from error


def _parse_host(text: str) -> Host:
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "http", text
    if scheme not in ("http", "https"):
        raise ValueError(f"scheme {scheme!r} is neither http nor https")
    # with a scheme and no port, the scheme's own port holds
    port = {"http": 80, "https": 443}[scheme] if found else 11434
    rest = rest.partition("/")[0]
    host, colon, digits = rest.rpartition(":")
    if colon and (rest.startswith("[") or ":" not in host) and not rest.endswith("]"):
        if not (digits.isascii() and digits.isdigit() and int(digits) <= 65535):
            raise ValueError(f"port {digits!r} is not a number from 0 to 65535")
        port = int(digits)
    else:
        host = rest
    host = host.strip("[]") or "127.0.0.1"
    if ":" in host:
        IPv6Address(host)
    return Host(scheme, host, port)


SETTINGS: Final = (
    Setting(
        "OLLAMA_MODELS",
        "models",
        "~/.ollama/models",
        _parse_folder,
        "folder of the model store; Ollama's own works",
    ),
    Setting(
        "OLLAMA_HOST",
        "host",
        "127.0.0.1:11434",
        _parse_host,
        "address of the server: [scheme://]host[:port]",
    ),
)
"""Every variable that is read."""
