"""The npm package ``ollama`` against our server."""

import subprocess
from pathlib import Path

import pytest

from helpers.live_server import LiveServer

pytestmark = [pytest.mark.model, pytest.mark.slow]

SCRIPT = Path(__file__).with_name("ollama_client.mjs")
TESTS = ["chat", "generate", "format", "embeddings", "models", "copyAndDelete", "create", "abort", "errors"]


def test_node(live: LiveServer, node: str, node_package: Path) -> None:
    done = subprocess.run([node, SCRIPT, live.url, node_package], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [f"passed: {name}" for name in TESTS]
