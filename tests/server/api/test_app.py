"""The application as a whole: what it loads, and what surrounds it on a real port."""

import subprocess
import sys
from pathlib import Path

import httpx2
import ollama
import pytest

from helpers.live_server import running_server


def test_the_service_loads_no_native_code() -> None:
    code = "import sys, pyggml_server.api; print([m for m in sys.modules if m.startswith('pyggml._ffi')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_keys_on_a_real_server(tmp_path: Path) -> None:
    with running_server(tmp_path, environment={"PYGGML_API_KEYS": "secret"}) as server:
        assert httpx2.get(server.url).text == "Ollama is running"
        assert httpx2.get(f"{server.url}/api/tags").status_code == 401
        assert httpx2.get(f"{server.url}/v1/models").status_code == 401
        client = ollama.Client(host=server.url, headers={"Authorization": "Bearer secret"})
        assert client.list().models == []
        client._client.close()
        assert "secret" not in repr(server.config)


def test_names_of_others_are_refused(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        assert httpx2.get(server.url, headers={"Host": "evil.com"}).status_code == 403
        assert httpx2.get(server.url, headers={"Origin": "http://evil.com"}).status_code == 403
        assert httpx2.post(f"{server.url}/api/chat", content=b"x" * (65 * 2**20)).status_code == 413


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/show"])
def test_an_empty_store(tmp_path: Path, path: str) -> None:
    with running_server(tmp_path) as server:
        answer = httpx2.post(server.url + path, json={"model": "none", "prompt": "a"})
        assert (answer.status_code, answer.json()) == (404, {"error": "model 'none' not found"})
