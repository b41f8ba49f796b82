"""One server for all tests of this folder."""

from collections.abc import Iterator

import httpx2
import ollama
import pytest

from helpers.live_server import LiveServer, running_server
from pyggml_server.names import Name

MODEL = "smol"
"""SmolLM2 with a small context, one thread (the machine may be busy) and a fixed seed."""

# a model of 135 million parameters knows neither; the templates show how a model that does is asked
TOOLS_TEMPLATE = """{{- if .Tools }}<|im_start|>system
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
THINK_TEMPLATE = """{{ range .Messages }}<|im_start|>{{ .Role }}
{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ if .Think }}<think>
{{ end }}"""
CHANNELS_TEMPLATE = """{{ range .Tools }}{{ . }}{{ end }}{{ range .Messages }}<|start|>{{ .Role }}<|message|>
{{- .Content }}<|end|>{{ end }}<|start|>assistant{{ if false }}<|channel|>{{ end }}"""


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with SmolLM2 (as ``smol``), a base model without template, and all-minilm."""
    folder = tmp_path_factory.mktemp("models")
    with running_server(folder, models=("smollm2:135m", "all-minilm")) as server:
        stored = server.store.get(Name.parse("smollm2:135m"))
        params = {**stored.params, "num_ctx": 256, "num_thread": 1, "seed": 1, "temperature": 0, "num_predict": 8}
        templates = {"tools": TOOLS_TEMPLATE, "thinks": THINK_TEMPLATE, "channels": CHANNELS_TEMPLATE}
        for name, template in {MODEL: stored.template, **templates}.items():
            server.store.write_model(Name.parse(name), model=stored.weights, template=template, params=params)
        bert = server.store.get(Name.parse("all-minilm"))
        server.store.write_model(Name.parse("minilm"), model=bert.weights, params={"num_thread": 1})
        yield server


@pytest.fixture(scope="session")
def http(live: LiveServer) -> Iterator[httpx2.Client]:
    """A plain HTTP client."""
    with httpx2.Client(base_url=live.url, timeout=120) as client:
        yield client


@pytest.fixture(scope="session")
def client(live: LiveServer) -> Iterator[ollama.Client]:
    """Ollama's own client."""
    found = ollama.Client(host=live.url)
    yield found
    found._client.close()
