"""What happens to streams when the runner dies under them."""

import json
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from helpers.live_server import running_server

pytestmark = pytest.mark.model

N_STREAMS = 20
MODEL = "smollm2:135m"
ASK = {"messages": [{"role": "user", "content": "Tell me a story."}]}
ENDLESS = {"num_predict": 600, "ignore_eos": True, "num_thread": 1}
STREAMS: list[tuple[str, dict[str, Any]]] = [
    ("/api/generate", {"prompt": "Once upon a time", "raw": True}),
    ("/api/chat", ASK),
    ("/v1/chat/completions", ASK),
    ("/v1/completions", {"prompt": "Once upon a time"}),
    ("/v1/messages", {**ASK, "max_tokens": 600}),
]


def test_a_late_error_is_the_last_line(tmp_path: Path) -> None:
    """Row 34: kill -9 in the middle of 20 streams; the server stays, the next request loads the model again."""
    slots = {"OLLAMA_NUM_PARALLEL": str(N_STREAMS), "OLLAMA_CONTEXT_LENGTH": "64"}
    with (
        running_server(tmp_path, models=(MODEL,), environment=slots) as server,
        httpx2.Client(base_url=server.url, timeout=120, limits=httpx2.Limits(max_connections=None)) as http,
        ThreadPoolExecutor(N_STREAMS) as threads,
    ):
        under_way = threading.Barrier(N_STREAMS + 1, timeout=100)
        jobs = [threads.submit(_read, http, STREAMS[i % len(STREAMS)], under_way.wait) for i in range(N_STREAMS)]
        under_way.wait()  # each has had a piece of its answer
        (model,) = server.scheduler.loaded()
        assert model.pid is not None
        os.kill(model.pid, signal.SIGKILL)
        statuses = [http.get("/api/version").status_code]
        while not all(job.done() for job in jobs):
            statuses.append(http.get("/api/version").status_code)
        assert set(statuses) == {200}
        for i, job in enumerate(jobs):
            path, pieces = STREAMS[i % len(STREAMS)][0], job.result()
            assert _error_of(path, pieces[-1]) is not None, (path, pieces[-1])
            assert "SIGKILL" in str(_error_of(path, pieces[-1]))
            assert not [piece for piece in pieces[:-1] if _error_of(path, piece)], path
        body = {"model": MODEL, "prompt": "a", "stream": False, "options": {"num_predict": 2, "num_thread": 1}}
        assert http.post("/api/generate", json=body).json()["eval_count"] == 2


def _read(http: httpx2.Client, kind: tuple[str, dict[str, Any]], begun: Callable[[], object]) -> list[str]:
    """Everything that comes: lines, or the text of events."""
    path, body = kind
    with http.stream("POST", path, json={"model": MODEL, "stream": True, "options": ENDLESS, **body}) as answer:
        assert answer.status_code == 200
        lines = (line for line in answer.iter_lines() if line and not line.startswith("event:"))
        found = [next(lines)]
        begun()
        return found + list(lines)


def _error_of(path: str, line: str) -> str | None:
    """The message of an error in the form of the API; None: this is no error."""
    assert line.startswith("data: ") == path.startswith("/v1/"), line
    if line == "data: [DONE]":
        return None
    piece: dict[str, Any] = json.loads(line.removeprefix("data: "))
    error = piece.get("error")
    if error is None:
        return None
    if not path.startswith("/v1/"):
        assert set(piece) == {"error"}
        return str(error)
    assert path != "/v1/messages" or piece["type"] == "error"
    assert error["type"] == "api_error"
    return str(error["message"])
