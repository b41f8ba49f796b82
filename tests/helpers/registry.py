"""A small registry with faults: the OCI distribution protocol over threads and plain sockets."""

import base64
import contextlib
import hashlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Faults:
    """What goes wrong; every number counts down."""

    cut: int = 0
    """So many answers with content end in the middle."""
    stall: int = 0
    """So many answers with content stop after half of it, without an end."""
    unavailable: int = 0
    """So many requests get status 503."""
    wrong: bool = False
    """Contents have a wrong byte."""
    no_ranges: bool = False
    """Ranges are ignored."""
    slow: float = 0.0
    """Seconds before each half of a content."""
    slow_uploads: float = 0.0
    """Seconds before each answer to a PATCH or PUT."""
    lose_patches: int = 0
    """So many PATCHes: half of the content arrives, then the connection ends."""


@dataclass
class Registry:
    """The contents of a registry, and what was asked of it."""

    url: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    owners: dict[str, set[str]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    private: bool = False
    """A repository shows only the blobs that were sent or lent to it."""
    token: str = ""
    password: str = ""
    realm: str = ""
    cdn: str = ""
    hub: dict[str, str] = field(default_factory=dict)
    """Files of a hub: path → digest. The registry refuses their models, as Hugging Face does with split ones."""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    token_requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def host(self) -> str:
        """``address:port``."""
        return urlsplit(self.url).netloc

    def add(self, data: bytes) -> str:
        """Put a blob in; gives its digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return digest

    def add_model(self, repository: str, tag: str, model: bytes, **texts: bytes) -> bytes:
        """Put a model in; gives its manifest."""
        kinds = {"model": model, **texts}
        layers = [
            {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": self.add(data), "size": len(data)}
            for kind, data in kinds.items()
        ]
        config = json.dumps({"model_format": "gguf", "model_family": "llama", "model_type": "1K"}).encode()
        document = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": self.add(config),
                "size": len(config),
            },
            "layers": layers,
        }
        data = json.dumps(document).encode()
        self.manifests[f"{repository}/{tag}"] = data
        return data

    def count(self, method: str, pattern: str) -> int:
        """How many requests there were."""
        return sum(m == method and re.search(pattern, path) is not None for m, path, _ in self.requests)

    def take(self, fault: str) -> bool:
        """Whether a fault is due."""
        with self.lock:
            left: int = getattr(self.faults, fault)
            setattr(self.faults, fault, max(left - 1, 0))
            return left > 0


@contextlib.contextmanager
def running_registry(*, cdn_of: Registry | None = None, tls: ssl.SSLContext | None = None) -> Iterator[Registry]:
    """Serve a registry on a free port until the block ends; with ``cdn_of``, another address of its contents."""
    registry = Registry() if cdn_of is None else cdn_of
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(registry, is_cdn=cdn_of is not None))
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_address[1]}"
    if cdn_of is None:
        registry.url = url
    else:
        registry.cdn = url
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(registry: Registry, *, is_cdn: bool) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"registry": registry, "is_cdn": is_cdn})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: Registry
    is_cdn: bool

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        registry, url = self.registry, urlsplit(self.path)
        headers = {key.lower(): value for key, value in self.headers.items()}
        registry.requests.append((self.command, ("cdn:" if self.is_cdn else "") + self.path, headers))
        if url.path == "/token":
            registry.token_requests.append((self.path, headers))
            self._answer(200, json.dumps({"token": registry.token}).encode())
            return
        if not self.is_cdn and not self._allowed(headers):
            return
        if registry.faults.slow_uploads and self.command in ("PATCH", "PUT"):
            time.sleep(registry.faults.slow_uploads)
        if registry.take("unavailable"):
            self._answer(503, b"later")
            return
        if url.path.startswith("/api/models/"):
            rows = [{"path": p, "lfs": {"oid": d[7:], "size": len(registry.blobs[d])}} for p, d in registry.hub.items()]
            half = len(rows) // 2  # two pages
            second = "cursor" in url.query
            link = {} if second else {"Link": f'<{registry.url}{url.path}?cursor=2>; rel="next"'}
            self._answer(200, json.dumps(rows[half:] if second else rows[:half]).encode(), link)
            return
        if "/resolve/main/" in url.path:
            self._blob("", registry.hub[url.path.partition("/resolve/main/")[2]], headers)
            return
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/(.+)", url.path)
        if match is None:
            self._answer(200 if url.path == "/v2/" else 404, b"{}")
            return
        repository, kind, rest = match[1], match[2], match[3]
        if kind == "manifests":
            self._manifest(repository, rest)
        elif rest.startswith("uploads/"):
            self._upload(repository, rest.removeprefix("uploads/"), parse_qs(url.query), headers)
        else:
            self._blob(repository, rest, headers)

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = _serve

    def _allowed(self, headers: dict[str, str]) -> bool:
        registry, given = self.registry, headers.get("authorization", "")
        if registry.password and given != f"Basic {base64.b64encode(registry.password.encode()).decode()}":
            self._answer(401, b"{}", {"WWW-Authenticate": 'Basic realm="here"'})
            return False
        if registry.token and given != f"Bearer {registry.token}":
            realm = registry.realm or f"{registry.url}/token"
            challenge = f'Bearer realm="{realm}",service="test",scope="repository:x:pull,push"'
            self._answer(401, b"{}", {"WWW-Authenticate": challenge})
            return False
        return True

    def _manifest(self, repository: str, tag: str) -> None:
        key = f"{repository}/{tag}"
        if self.command == "PUT":
            data = self._body()
            wanted = json.loads(data)
            digests = [layer["digest"] for layer in [wanted["config"], *wanted["layers"]]]
            if any(digest not in self.registry.blobs for digest in digests):
                self._answer(400, b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown"}]}')
                return
            self.registry.manifests[key] = data
            self._answer(201, b"")
        elif self.registry.hub:
            self._answer(400, b'{"error":"The specified repository contains sharded GGUF."}')
        elif key in self.registry.manifests:
            self._answer(200, self.registry.manifests[key])
        else:
            self._answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')

    def _blob(self, repository: str, digest: str, headers: dict[str, str]) -> None:
        registry, faults = self.registry, self.registry.faults
        data = registry.blobs.get(digest)
        if data is None or (registry.private and repository not in registry.owners.get(digest, set())):
            self._answer(404, b"{}")
            return
        if registry.cdn and not self.is_cdn and self.command == "GET":
            self._answer(307, b"", {"Location": f"{registry.cdn}{self.path}"})
            return
        if faults.wrong:
            data = bytes([data[0] ^ 1]) + data[1:]
        status, extra, whole = 200, {}, len(data)
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("range", ""))
        if match is not None and not faults.no_ranges:
            first, last = int(match[1]), int(match[2])
            data, status = data[first : last + 1], 206
            extra = {"Content-Range": f"bytes {first}-{last}/{whole}"}
        self._answer(status, data, extra, may_fail=self.command == "GET")

    def _upload(self, repository: str, key: str, query: dict[str, list[str]], headers: dict[str, str]) -> None:
        registry = self.registry
        place = f"/v2/{repository}/blobs/uploads/"
        if self.command == "POST":
            self._body()
            source, digest = query.get("from", [""])[0], query.get("mount", [""])[0]
            if digest in registry.blobs and source in registry.owners.get(digest, set()):
                registry.owners[digest].add(repository)
                self._answer(201, b"", {"Location": f"/v2/{repository}/blobs/{digest}"})
                return
            key = f"u{len(registry.uploads)}"
            registry.uploads[key] = bytearray()
            self._answer(202, b"", {"Location": place + key, "Range": "0-0"})
            return
        upload = registry.uploads.get(key)
        if upload is None:
            self._answer(404, b"{}")
            return
        if self.command == "PATCH":
            first = int(headers["content-range"].partition("-")[0])
            if first != len(upload):
                self._answer(416, b"{}")
                return
            if registry.take("lose_patches"):
                upload += self.rfile.read(int(headers["content-length"]) // 2)
                self._cut()
                return
            upload += self._body()
        elif self.command == "PUT":
            digest = query["digest"][0]
            if f"sha256:{hashlib.sha256(upload).hexdigest()}" != digest:
                self._answer(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"digest invalid"}]}')
                return
            registry.blobs[digest] = bytes(upload)
            registry.owners.setdefault(digest, set()).add(repository)
            self._answer(201, b"")
            return
        status = 202 if self.command == "PATCH" else 204
        self._answer(status, b"", {"Location": place + key, "Range": f"0-{max(len(upload) - 1, 0)}"})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, *, may_fail: bool = False
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        fault: Callable[[], None] | None = None
        if may_fail and len(body) > 1:
            fault = self._cut if self.registry.take("cut") else self._stall if self.registry.take("stall") else None
        with contextlib.suppress(ConnectionError):
            middle = len(body) // 2
            for half in (body[:middle], body[middle:]):
                if may_fail and self.registry.faults.slow:
                    time.sleep(self.registry.faults.slow)
                self.wfile.write(half)
                self.wfile.flush()
                if fault is not None:
                    fault()
                    return

    def _stall(self) -> None:
        self.connection.settimeout(10)
        with contextlib.suppress(OSError):
            self.connection.recv(1)  # until the client goes away
        self.close_connection = True

    def _cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
