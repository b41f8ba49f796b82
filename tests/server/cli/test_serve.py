"""``pyggml serve`` and the commands that talk to it, in processes of their own."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.served import PYGGML, Server, gone

OPTIONS = {"num_ctx": 256, "num_thread": 1, "temperature": 0}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.close()


@pytest.mark.model
def test_ps_stop_and_a_graceful_end(server: Server) -> None:
    assert server.command("ps").stdout.split() == ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]
    body = {"model": "smollm2:135m", "options": OPTIONS, "keep_alive": "2h"}
    assert server.client.post("/api/generate", json=body).json()["done_reason"] == "load"
    row = server.command("ps").stdout.splitlines()[1]
    assert re.fullmatch(r"smollm2:135m +[0-9a-f]{12} +\d+ MB +100% CPU +256 +1 hour from now", row)

    assert server.command("stop", "smollm2:135m").returncode == 0
    assert gone(server.runners())
    stopped = server.command("stop", "no-such-model")
    assert (stopped.returncode, stopped.stderr) == (1, 'Error: couldn\'t find model "no-such-model" to stop\n')
    assert server.command("stop").returncode == 2
    server.client.post("/api/generate", json=body)
    assert server.command("stop", "--all").returncode == 0
    assert server.client.get("/api/ps").json() == {"models": []}


@pytest.mark.model
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_in_the_middle_of_answers(server: Server, tmp_path: Path, number: signal.Signals) -> None:
    """Each answer ends with one error, nothing is left, and the log tells what was asked, and no more."""
    options = OPTIONS | {"num_predict": 5000, "ignore_eos": True}
    body = {"model": "smollm2:135m", "prompt": "Once upon a time", "options": options, "raw": True}
    others = [
        ("/api/generate", body | {"stream": False}),
        ("/v1/completions", {"model": "smollm2:135m", "prompt": "x", "max_tokens": 5000, "options": options}),
    ]
    with (
        ThreadPoolExecutor() as threads,
        server.client.stream("POST", "/api/generate", json=body) as native,
        server.client.stream("POST", "/v1/completions", json=others[1][1] | {"stream": True}) as events,
    ):
        lines, frames = native.iter_lines(), events.iter_lines()
        assert json.loads(next(lines))["response"]
        assert next(frames).startswith("data: {")
        whole = [threads.submit(server.client.post, path, json=fields) for path, fields in others]
        time.sleep(0.5)
        runners = server.runners()
        server.process.send_signal(number)
        errors = [json.loads(list(lines)[-1]), *(each.result().json() for each in whole)]
        errors.append(json.loads([line for line in frames if line][-1].removeprefix("data: ")))
    assert all("the server is shutting down" in str(error["error"]) for error in errors), errors
    assert [each.result().status_code for each in whole] == [503, 503]
    assert server.process.wait(30) == 0
    assert runners
    assert gone(runners)
    log = server.log.read_text()
    assert not re.search("Traceback|ERROR|WARNING", log), log
    assert log.count("pyggml.access") == 4


@pytest.mark.model
def test_runners_do_not_survive_a_killed_server(server: Server) -> None:
    server.client.post("/api/generate", json={"model": "smollm2:135m", "options": OPTIONS})
    runners = server.runners()
    assert runners
    server.process.kill()
    server.process.wait()
    assert gone(runners)
    found = server.command("ps")
    assert found.returncode == 1
    assert "run 'pyggml serve' to start it" in found.stderr


@pytest.mark.model
@pytest.mark.parametrize("debug", ["0", "1", "2"])
def test_prompts_are_logged_only_where_everything_is(tmp_path: Path, debug: str) -> None:
    server = Server(tmp_path, OLLAMA_DEBUG=debug)
    try:
        body = {"model": "smollm2:135m", "prompt": "A zebra walks", "options": OPTIONS | {"num_predict": 1}}
        assert server.client.post("/api/generate", json=body | {"stream": False}).status_code == 200
        log = server.log.read_text()
        assert ("zebra" in log) == (debug == "2")
        assert log.count("POST /api/generate") == 1
    finally:
        server.close()


def test_what_keeps_the_server_from_starting(tmp_path: Path) -> None:
    def serve(**variables: str) -> str:
        found = subprocess.run(
            [*PYGGML, "serve"], env=os.environ | {"OLLAMA_MODELS": str(tmp_path)} | variables, capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip
        assert found.returncode == 1
        return found.stderr

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1:{port}" in serve(OLLAMA_HOST=f"127.0.0.1:{port}")
    assert "OLLAMA_NUM_PARALLEL='many'" in serve(OLLAMA_NUM_PARALLEL="many")
    assert "PYGGML_TLS_CERTIFICATE" in serve(OLLAMA_HOST="https://127.0.0.1:0")
