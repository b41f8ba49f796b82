"""The example program talks to a real server."""

import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from helpers.live_server import LiveServer

pytestmark = pytest.mark.model

PROGRAM = Path(__file__).parents[3] / "examples" / "chat.py"


def run(live: LiveServer, typed: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OLLAMA_HOST": live.url}
    command = [sys.executable, str(PROGRAM), *arguments]
    return subprocess.run(command, input=typed, capture_output=True, text=True, env=environment, timeout=240)


def test_pick_warm_up_chat(live: LiveServer, http: httpx2.Client) -> None:
    names = [model["name"] for model in http.get("/api/tags").json()["models"]]
    number = names.index("smol:latest") + 1
    done = run(live, f"99\nx\n{number}\n\nSay hello.\nAnd again.\nquit\n")
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert first.strip().startswith("1  ")
    assert done.stdout.count("> ") >= 3
    assert done.stderr.count(" per second]") == 2
    assert "loading" in done.stderr


def test_named_model_and_end_of_input(live: LiveServer) -> None:
    done = run(live, "Say hello.\n", "smol")
    assert done.returncode == 0, done.stderr
    assert "[8 tokens, " in done.stderr


def test_unknown_model(live: LiveServer) -> None:
    done = run(live, "", "none")
    assert done.returncode == 1
    assert "error: model 'none' not found" in done.stderr
