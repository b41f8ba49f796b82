"""A place that gives out tokens of the registry token protocol: JSON Web Tokens, for those who know the password."""

import base64
import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificate:
    """A key and a certificate of its own making for ``localhost`` and ``127.0.0.1``."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    path: Path
    """Both, as PEM."""

    @classmethod
    def make(cls, path: Path) -> "Certificate":
        """Make one."""
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = builder.serial_number(1).not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        certificate = builder.sign(key, SHA256())
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(secret + certificate.public_bytes(Encoding.PEM))
        return cls(key, certificate, path)

    def context(self) -> ssl.SSLContext:
        """For a server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path)
        return context

    def token(self, claims: dict[str, Any]) -> str:
        """A signed JSON Web Token (RFC 7519, ES256)."""
        chain = base64.b64encode(self.certificate.public_bytes(Encoding.DER)).decode()
        parts = [
            _base64(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ES256", "x5c": [chain]}, claims)
        ]
        text = ".".join(parts)
        r, s = decode_dss_signature(self.key.sign(text.encode(), ec.ECDSA(SHA256())))
        return f"{text}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class TokenServer:
    """Where it is, who it lets in, and what it was asked."""

    certificate: Certificate
    url: str = ""
    password: str = "user:word"
    requests: list[tuple[dict[str, list[str]], str]] = field(default_factory=list)
    """Query and ``Authorization`` of each request."""

    def answer(self, query: dict[str, list[str]], authorization: str) -> str | None:
        """A token; None for those who do not know the password."""
        self.requests.append((query, authorization))
        if authorization != f"Basic {base64.b64encode(self.password.encode()).decode()}":
            return None
        scopes = [scope.split(":") for scope in query.get("scope", [])]
        now = int(time.time())
        claims = {
            "iss": "tests", "sub": "user", "aud": query["service"][0], "exp": now + 300, "nbf": now - 10, "iat": now,
            "jti": str(len(self.requests)),
            "access": [{"type": kind, "name": name, "actions": actions.split(",")} for kind, name, actions in scopes],
        }  # fmt: skip
        return self.certificate.token(claims)


@contextlib.contextmanager
def running_token_server(certificate: Certificate) -> Iterator[TokenServer]:
    """Serve tokens at ``https://localhost:PORT/token`` until the block ends."""
    tokens = TokenServer(certificate)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"tokens": tokens}))
    server.socket = certificate.context().wrap_socket(server.socket, server_side=True)
    tokens.url = f"https://localhost:{server.server_address[1]}/token"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield tokens
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    tokens: TokenServer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Give out a token."""
        token = self.tokens.answer(parse_qs(urlsplit(self.path).query), self.headers.get("Authorization", ""))
        body = json.dumps({"token": token} if token else {"details": "who are you?"}).encode()
        self.send_response(200 if token else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
