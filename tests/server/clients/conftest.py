"""Clients that need more than the test environment: kept in ``.venv-clients``, which is made when it is missing."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.live_server import LiveServer, running_server
from pyggml_server.names import Name

ROOT = Path(__file__).parents[3]
CLIENTS = ROOT / ".venv-clients"
PYTHON_PACKAGES = ("langchain-ollama>=1.1,<2", "langchain-tests>=1.1,<2")
NODE_PACKAGE = "ollama@^0.6.4"

# a model of 135 million parameters knows no tools; its template shows how one that does is asked
TEMPLATE = """{{- if .Tools }}<|im_start|>system
Functions: {{ range .Tools }}{{ . }}
{{ end }}Call one so: <tool_call>
{"name": "...", "arguments": {...}}
</tool_call><|im_end|>
{{ end }}{{ range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}{{ range .ToolCalls }}<tool_call>
{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
</tool_call>{{ end }}<|im_end|>
{{ end }}<|im_start|>assistant
"""


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with ``smol`` (SmolLM2 with a template for tools; also as ``smol2``) and ``minilm``."""
    with running_server(tmp_path_factory.mktemp("models"), models=("smollm2:135m", "all-minilm")) as server:
        smollm2 = server.store.get(Name.parse("smollm2:135m"))
        params = {"num_ctx": 2048, "num_thread": 1, "seed": 1, "temperature": 0, "num_predict": 64}
        stops = smollm2.params.get("stop", [])
        server.store.write_model(
            Name.parse("smol"), model=smollm2.weights, template=TEMPLATE, params={**params, "stop": stops}
        )
        server.store.copy(Name.parse("smol"), Name.parse("smol2"))
        bert = server.store.get(Name.parse("all-minilm"))
        server.store.write_model(Name.parse("minilm"), model=bert.weights, params={"num_thread": 1})
        yield server


@pytest.fixture(scope="session")
def clients_python() -> Path:
    """A Python with langchain's client and its tests: their pytest plugins do not go with our settings."""
    python = CLIENTS / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(CLIENTS)], check=True)
    installed = subprocess.run([python, "-c", "import langchain_ollama, langchain_tests"], capture_output=True)
    if installed.returncode:
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PYTHON_PACKAGES], check=True)
    return python


@pytest.fixture(scope="session")
def node() -> str:
    """Node.js."""
    found = shutil.which("node")
    return found or pytest.skip("no node here")


@pytest.fixture(scope="session")
def node_package(node: str) -> Path:
    """The entry of the npm package ``ollama``."""
    entry = CLIENTS / "node_modules/ollama/dist/index.mjs"
    if not entry.exists():
        npm = shutil.which("npm") or pytest.skip("no npm here")
        subprocess.run([npm, "install", "--silent", "--prefix", str(CLIENTS), NODE_PACKAGE], check=True)
    return entry
