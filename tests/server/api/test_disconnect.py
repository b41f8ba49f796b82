"""A client that goes away takes its request along, whether it is streamed or not."""

import json
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from helpers.live_server import LiveServer

pytestmark = pytest.mark.model

LONG: dict[str, Any] = {
    "model": "smol",
    "prompt": "Once upon a time",
    "raw": True,
    "options": {"num_predict": 2000, "ignore_eos": True, "num_ctx": 256},
}


def active(http: httpx2.Client) -> int:
    models = http.get("/api/ps").json()["models"]
    return sum(model.get("active", 0) for model in models)


def running(http: httpx2.Client) -> float:
    lines = http.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("pyggml_model_running_sequences{"))


def wait_until(check: object, *, seconds: float) -> float:
    """How long it took."""
    assert callable(check)
    started = time.monotonic()
    while not check():
        assert time.monotonic() - started < seconds, "nothing happened"
        time.sleep(0.02)
    return time.monotonic() - started


def open_request(live: LiveServer, body: dict[str, object], *, path: str = "/api/generate") -> socket.socket:
    address = urlsplit(live.url)
    payload = json.dumps(body).encode()
    connection = socket.create_connection((address.hostname, address.port))
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(payload)}\r\n\r\n"
    connection.sendall(head.encode() + payload)
    return connection


@pytest.mark.parametrize("stream", [True, False])
def test_disconnect_cancels(live: LiveServer, http: httpx2.Client, stream: bool) -> None:
    http.post("/api/generate", json={"model": "smol"})
    with open_request(live, {**LONG, "stream": stream}) as connection:
        if stream:
            assert b"200 OK" in connection.recv(4096)
        wait_until(lambda: running(http) == 1, seconds=60)
        assert active(http) == 1
    # far less than 2000 tokens take; the rest is the slack of a busy machine
    assert wait_until(lambda: running(http) == 0, seconds=10) < 10
    assert active(http) == 0


def test_disconnect_while_loading(live: LiveServer, http: httpx2.Client) -> None:
    http.post("/api/generate", json={"model": "smol", "keep_alive": 0})
    with open_request(live, {**LONG, "stream": False}):
        wait_until(lambda: http.get("/api/ps").json()["models"] != [], seconds=10)
    wait_until(lambda: active(http) == 0, seconds=10)
    answer = http.post("/api/generate", json={**LONG, "stream": False, "options": {"num_predict": 2}})
    assert answer.json()["eval_count"] == 2


@pytest.mark.parametrize("stream", [True, False])
def test_disconnect_while_a_long_prompt_is_read(live: LiveServer, http: httpx2.Client, stream: bool) -> None:
    http.post("/api/generate", json={"model": "smol", "keep_alive": 0})
    http.post("/api/generate", json={"model": "smol", "options": {"num_ctx": 2048}})
    body = {**LONG, "prompt": "word " * 1900, "stream": stream, "options": {**LONG["options"], "num_ctx": 2048}}
    with open_request(live, body):
        wait_until(lambda: running(http) == 1, seconds=60)
    wait_until(lambda: active(http) == 0, seconds=5)
    wait_until(lambda: running(http) == 0, seconds=60)  # a batch is computed to its end
    name = 'pyggml_runner_counter{model="smol:latest",name="prompt_tokens"} '
    (count,) = (line for line in http.get("/metrics").text.splitlines() if line.startswith(name))
    http.post("/api/generate", json={"model": "smol", "keep_alive": 0})
    assert float(count.removeprefix(name)) < 1900


@pytest.mark.parametrize("stream", [True, False])
def test_disconnect_while_waiting_for_a_sequence(live: LiveServer, http: httpx2.Client, stream: bool) -> None:
    http.post("/api/generate", json={"model": "smol"})
    first = [open_request(live, {**LONG, "prompt": f"{i} Once"}) for i in range(2)]
    wait_until(lambda: running(http) == 2, seconds=60)
    with open_request(live, {**LONG, "stream": stream}):
        wait_until(lambda: active(http) == 3, seconds=30)
        assert http.get("/api/status").json()["queued"] == 1
    wait_until(lambda: active(http) == 2, seconds=10)
    assert http.get("/api/status").json()["queued"] == 0
    for connection in first:
        connection.close()
    wait_until(lambda: running(http) == 0, seconds=30)
    assert active(http) == 0


def test_disconnect_while_texts_are_embedded(live: LiveServer, http: httpx2.Client) -> None:
    http.post("/api/embed", json={"model": "minilm", "input": "x"})
    with open_request(live, {"model": "minilm", "input": ["some words " * 50] * 2000}, path="/api/embed"):
        wait_until(lambda: running(http) == 1, seconds=60)
    wait_until(lambda: active(http) == 0 and running(http) == 0, seconds=30)
    answer = http.post("/api/embed", json={"model": "minilm", "input": "x"})
    assert len(answer.json()["embeddings"]) == 1


def test_others_go_on(live: LiveServer, http: httpx2.Client) -> None:
    body = {**LONG, "stream": True, "options": {"num_predict": 12, "ignore_eos": True}}
    with http.stream("POST", "/api/generate", json=body) as answer:
        parts = answer.iter_lines()
        next(parts)
        open_request(live, {**LONG, "stream": True}).close()
        rest = [json.loads(part) for part in parts]
    assert rest[-1]["done"] is True
    assert rest[-1]["eval_count"] == 12
