"""Templates that loop, grow, recurse or reach into Python, from files and from requests: an error, soon."""

import hashlib
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from helpers.tiny import build

pytestmark = pytest.mark.model

ASK = [{"role": "user", "content": "hello"}]
SECONDS = 60
"""What one request may take on a busy machine; alone it takes a tenth."""

_DOUBLE = "{% set ns = namespace(x='a') %}{% for i in range(64) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
JINJA = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{{ tools }}<think></think>",
    "grows": _DOUBLE + "{{ tools }} reasoning thinking <tool_call>",
    "recurses": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}{{ tools }} thinking",
    "reaches": "{{ messages.__class__.__mro__ }}{{ ''.__class__.__subclasses__() }}{{ cycler.__init__.__globals__ }}",
}
GO = {
    "loops": "{{ range 5000 }}{{ range 5000 }}{{ end }}{{ end }}{{ .Prompt }}",
    "grows": '{{ $x := "a" }}{{ range 1000 }}{{ $x = print $x $x }}{{ end }}{{ .Prompt }}',
    "recurses": '{{ define "a" }}{{ template "a" }}{{ end }}{{ template "a" }}{{ .Prompt }}',
    "reaches": "{{ .Prompt.__class__ }}",
}


def bounded(request: Callable[[], httpx2.Response]) -> httpx2.Response:
    """A request's answer, after a look at time and memory (the server runs in this process)."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = request()
    assert time.monotonic() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # KiB
    return answer


@pytest.fixture(scope="module", params=sorted(JINJA))
def hostile(http: httpx2.Client, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> str:
    """The name of a model whose file holds a hostile template."""
    template = JINJA[request.param]

    def change(metadata: dict[str, object], weights: Any) -> None:
        metadata["tokenizer.chat_template"] = template

    path: Path = tmp_path_factory.mktemp("hostile") / "m.gguf"
    build(path, change=change)
    data = path.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert http.post(f"/api/blobs/{digest}", content=data).status_code == 201
    name = f"hostile-{request.param}"
    body = {"model": name, "files": {"m.gguf": digest}, "stream": False}
    assert bounded(lambda: http.post("/api/create", json=body)).json() == {"status": "success"}
    return name


def test_in_a_file(http: httpx2.Client, hostile: str) -> None:
    assert bounded(lambda: http.post("/api/show", json={"model": hostile})).status_code == 200
    names = {model["name"] for model in bounded(lambda: http.get("/api/tags")).json()["models"]}
    assert f"{hostile}:latest" in names
    answer = bounded(lambda: http.post("/api/chat", json={"model": hostile, "stream": False, "messages": ASK}))
    assert answer.status_code == 400, answer.text
    assert "template" in answer.json()["error"]


@pytest.mark.parametrize("kind", sorted(GO))
def test_in_a_request(http: httpx2.Client, kind: str) -> None:
    # a wrong one is refused at once, one that runs too long when it runs
    body = {"model": "smol", "prompt": "a", "template": GO[kind], "stream": False}
    answer = bounded(lambda: http.post("/api/generate", json=body))
    assert answer.status_code == 400, answer.text
    assert "template" in answer.json()["error"]
    shown = bounded(lambda: http.post("/api/show", json={"model": "smol", "template": GO[kind]}))
    made = {"model": f"go-{kind}", "from": "smol", "template": GO[kind], "stream": False}
    created = bounded(lambda: http.post("/api/create", json=made))
    assert shown.status_code == created.status_code
    if created.status_code == 200:
        for path in ("/api/chat", "/api/show"):
            answer = bounded(lambda path=path: http.post(path, json={"model": made["model"], "messages": ASK}))
            assert answer.status_code == (400 if path == "/api/chat" else 200), answer.text
    else:
        assert created.status_code == 400
