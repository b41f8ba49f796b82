"""Compressed bodies of requests."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable

import httpx2
import pytest
import zstandard
from starlette.types import Receive, Scope, Send

from pyggml_server.api.encodings import ContentEncoding, EncodingError, decompress

TEXT = json.dumps({"model": "none", "text": "word " * 500}).encode()
ENCODED = {"gzip": gzip.compress(TEXT), "deflate": zlib.compress(TEXT), "zstd": zstandard.compress(TEXT)}


@pytest.mark.parametrize("encoding", ENCODED)
def test_bodies_come_out_whole(encoding: str) -> None:
    body = ENCODED[encoding]
    assert decompress(body, encoding, limit=len(TEXT)) == TEXT
    with pytest.raises(EncodingError, match="at most") as caught:
        decompress(body, encoding, limit=len(TEXT) - 1)
    assert caught.value.status == 413
    for damaged in (body[:-5], b"nothing of the kind", body[:20] + bytes(20)):
        with pytest.raises(EncodingError, match=f"no valid {encoding}") as caught:
            decompress(damaged, encoding, limit=10**6)
        assert caught.value.status == 400
    assert decompress(b"", encoding, limit=1) == b""


@pytest.mark.parametrize("compress", [zlib.compress, zstandard.compress])
def test_a_bomb_is_put_out_early(compress: Callable[[bytes], bytes]) -> None:
    bomb = compress(bytes(2**24))
    with pytest.raises(EncodingError, match="too large"):
        decompress(bomb, "deflate" if compress is zlib.compress else "zstd", limit=2**16)


def test_a_window_that_wants_much_memory_is_refused() -> None:
    wide = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=27)).compressobj()
    with pytest.raises(EncodingError, match="no valid zstd"):
        decompress(wide.compress(TEXT) + wide.flush(), "zstd", limit=2**16)


async def _length(scope: Scope, receive: Receive, send: Send) -> None:
    headers = dict(scope["headers"])
    assert b"content-encoding" not in headers
    body = (await receive())["body"]
    assert headers[b"content-length"] == str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(len(body)).encode()})


@pytest.mark.parametrize("size", [500, 500_000])
def test_the_routes_see_plain_bodies(size: int) -> None:
    async def run() -> None:
        app = ContentEncoding(_length, limit=10**6, free="/api/blobs/")
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost") as client:
            body = gzip.compress(bytes(range(250)) * (size // 250), compresslevel=0)
            found = await client.post("/", content=body, headers={"content-encoding": "GZIP"})
            assert found.text == str(size)

    asyncio.run(run())


@pytest.mark.model
def test_the_server_takes_them(http: httpx2.Client) -> None:
    for encoding, body in ENCODED.items():
        answer = http.post("/api/tokenize", content=body, headers={"content-encoding": encoding})
        assert (answer.status_code, answer.json()) == (404, {"error": "model 'none' not found"})
    for path in ("/api/chat", "/v1/responses", "/v1/messages"):
        unknown = http.post(path, content=b"x", headers={"content-encoding": "br"})
        assert (unknown.status_code, "'br' is not supported" in str(unknown.json()["error"])) == (415, True)
