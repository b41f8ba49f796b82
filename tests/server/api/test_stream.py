"""What happens to streams when the runner dies under them."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from helpers.live_server import LiveServer

pytestmark = pytest.mark.model

BODY: dict[str, Any] = {
    "model": "smol",
    "prompt": "Once upon a time",
    "raw": True,
    "options": {"num_predict": 400, "ignore_eos": True},
}


def test_a_late_error_is_the_last_line(live: LiveServer, http: httpx2.Client) -> None:
    """Row 34: kill -9 in the middle of streams; the server stays, the next request loads the model again."""
    for keep_alive in ("5m", 0, "5m"):  # so that the runner bears this name, whoever used it before
        http.post("/api/generate", json={"model": "smol", "keep_alive": keep_alive})
    (pid,) = (model.pid for model in live.scheduler.loaded() if model.name == "smol:latest")
    assert pid is not None

    def read(kill: bool) -> list[dict[str, Any]]:
        with http.stream("POST", "/api/generate", json=BODY) as answer:
            assert answer.status_code == 200
            lines = answer.iter_lines()
            found = [json.loads(next(lines))]
            if kill:
                os.kill(pid, signal.SIGKILL)
            return found + [json.loads(line) for line in lines]

    with ThreadPoolExecutor(2) as threads:
        streams = list(threads.map(read, (False, True)))
    for parts in streams:
        assert set(parts[-1]) == {"error"}
        assert "runner" in parts[-1]["error"]
        assert all("error" not in part and not part["done"] for part in parts[:-1])
    assert http.get("/api/version").status_code == 200
    again = http.post("/api/generate", json={**BODY, "stream": False, "options": {"num_predict": 2}})
    assert again.json()["eval_count"] == 2
