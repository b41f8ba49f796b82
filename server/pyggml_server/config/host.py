"""Where the server listens."""

from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_address
from typing import Final

__all__ = ["Host", "parse_host"]

_PORTS: Final = {"http": 80, "https": 443}
_EVERY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class Host:
    """Where the server listens and where clients find it.

    Attributes:
        scheme: ``http`` or ``https``.
        host: A name or an address, without brackets.
        port: 0 to 65535.
        path: What clients put before every route, ``/ollama`` behind a proxy; empty, or without a slash at the end.
    """

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{name}:{self.port}{self.path}"

    @property
    def client_url(self) -> str:
        """As :attr:`url`, with a loopback address where the server listens on every address."""
        return replace(self, host=_EVERY.get(self.host, self.host)).url

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    @property
    def is_here(self) -> bool:
        """Whether clients that are told this address find the server on their own machine."""
        return self.is_loopback or self.host in _EVERY


def parse_host(text: str) -> Host:
    """``[scheme://]host[:port][/path]``; with a scheme and no port, the scheme's own port holds.

    Raises:
        ValueError: the scheme, the port or the address is wrong.
    """
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "http", text
    if scheme not in _PORTS:
        raise ValueError(f"scheme {scheme!r} is neither http nor https")
    port = _PORTS[scheme] if found else 11434
    rest, slash, path = rest.partition("/")
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
    return Host(scheme, host, port, (slash + path).rstrip("/"))
