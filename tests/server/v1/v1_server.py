"""A server in a process of its own, with real runners, for clients that nobody here wrote."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from pyggml_server.names import Name
from pyggml_server.store import Blob, Store

TEXT = "Teal is a colour between blue and green."
FORCED: Any = {"type": "choice", "choices": [TEXT]}
"""A grammar that allows one answer: how near ties between tokens fall depends on what else is computed with them."""
PATTERN = "([a-z]{2,4} ){5}[a-z]{2,4}"
WORDS: Any = {"type": "regex", "pattern": PATTERN}
"""One that leaves a choice, so that an answer takes several steps."""

# what the model of 135 million parameters does not know it is shown: how tools are announced and called
TOOLS_TEMPLATE = """{{- if .Tools }}<|im_start|>system
You may call these functions:
{{ range .Tools }}{{ . }}
{{ end }}Answer a call as <tool_call>
{"name": "...", "arguments": {...}}
</tool_call><|im_end|>
{{ end }}{{ range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}{{ range .ToolCalls }}<tool_call>
{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
</tool_call>{{ end }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
THINK_TEMPLATE = """{{ range .Messages }}<|im_start|>{{ .Role }}
{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
<think>
"""


@dataclass(frozen=True)
class Served:
    """Where a server listens, and its store."""

    url: str
    store: Store
    pid: int

    def runners(self) -> list[int]:
        """Process ids of the server's runners."""
        table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        return [int(pid) for pid, parent in map(str.split, table.splitlines()) if int(parent) == self.pid]

    def openai(self) -> openai.OpenAI:
        """A client that tries once and says what went wrong."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=120)

    def anthropic(self) -> anthropic.Anthropic:
        """A client that tries once and says what went wrong."""
        return anthropic.Anthropic(base_url=self.url, api_key="none", max_retries=0, timeout=120)


def add_model(store: Store, name: str, source: Path, template: str | None) -> None:
    digest = f"sha256:{source.name.removeprefix('sha256-')}"
    link = store.blobs.path(digest)
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(source)
    params = {"num_ctx": 512, "num_thread": 1, "stop": ["<|im_end|>"]}
    store.write_model(Name.parse(name), model=Blob(digest, source.stat().st_size), template=template, params=params)


@contextmanager
def serving(folder: Path, models: Mapping[str, tuple[Path, str | None]]) -> Iterator[Served]:
    """Run a server until the block ends.

    Args:
        folder: For its store and its log.
        models: Name to weights and template.
    """
    store = Store(folder / "models")
    for name, (path, template) in models.items():
        add_model(store, name, path, template)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OLLAMA_HOST": f"127.0.0.1:{port}", "OLLAMA_MODELS": str(store.folder)}
    environment |= {"OLLAMA_NUM_PARALLEL": "4", "OLLAMA_KEEP_ALIVE": "10m", "OLLAMA_NOPRUNE": "1", "HOME": str(folder)}
    log = folder / "log"
    with log.open("wb") as output:
        code = "from pyggml_server.cli.main import main; main()"
        command = [sys.executable, "-c", code, "serve"]
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        _wait(server, f"http://127.0.0.1:{port}", log)
        yield Served(f"http://127.0.0.1:{port}", store, server.pid)
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait(server: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + 200  # machines may be busy
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{url}/api/version", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail(f"the server did not start:\n{log.read_text()}")
