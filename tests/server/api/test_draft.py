"""Draft models: a real server, SmolLM2 with itself as its draft model."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from helpers.live_server import LiveServer
from pyggml_server.names import Name

pytestmark = pytest.mark.model

PROMPT = {"prompt": "Count from one to twenty in words.", "stream": False, "options": {"num_predict": 40}}


@pytest.fixture(scope="module")
def drafted(live: LiveServer, http: httpx2.Client) -> Iterator[str]:
    """The model ``smol`` with itself as its draft model."""
    digest = live.store.get(Name.parse("smol")).weights.digest
    request = {"model": "drafted", "from": "smol", "draft_files": {"small.gguf": digest}, "stream": False}
    assert http.post("/api/create", json=request).json()["status"] == "success"
    yield "drafted"
    http.post("/api/generate", json={"model": "drafted", "keep_alive": 0})


def answer(http: httpx2.Client, model: str, **options: Any) -> tuple[str, float]:
    """The text, and how many tokens were drafted for it."""
    before = drafted_tokens(http)
    request = {**PROMPT, "model": model, "options": {**PROMPT["options"], **options}}  # type: ignore[dict-item]
    reply = http.post("/api/generate", json=request).raise_for_status().json()
    return reply["response"], drafted_tokens(http) - before


def drafted_tokens(http: httpx2.Client) -> float:
    lines = http.get("/metrics").text.splitlines()
    return sum(
        float(line.rpartition(" ")[2]) for line in lines if "runner_counter" in line and "drafted_tokens" in line
    )


def test_the_answer_is_the_same(http: httpx2.Client, drafted: str) -> None:
    """Row 145: a draft model changes the speed, not the answer; without one, drafts come from the prompt."""
    plain, none = answer(http, "smol", draft_num_predict=0)
    assert none == 0
    with_drafts, n = answer(http, drafted)
    assert with_drafts == plain and n > 10
    without, none = answer(http, drafted, draft_num_predict=0)
    assert (without, none) == (plain, 0)
    assert answer(http, "smol", draft_num_predict=7)[0] == plain


def test_it_is_shown_and_inherited(live: LiveServer, http: httpx2.Client, drafted: str) -> None:
    stored = live.store.get(Name.parse(drafted))
    shown = http.post("/api/show", json={"model": drafted}).json()
    assert f"DRAFT {stored.draft}" in shown["modelfile"].splitlines()
    request = {"model": "heir", "from": drafted, "system": "Be brief.", "stream": False}
    http.post("/api/create", json=request).raise_for_status()
    assert live.store.get(Name.parse("heir")).draft == stored.draft


def test_another_vocabulary_is_refused(live: LiveServer, http: httpx2.Client) -> None:
    """When the model is made; and where it came from elsewhere, when it is loaded. Both models are named."""
    bert = live.store.get(Name.parse("minilm")).weights
    request = {"model": "odd", "from": "smol", "draft_files": {"bert.gguf": bert.digest}, "stream": False}
    reply = http.post("/api/create", json=request)
    assert reply.status_code == 400
    assert "the draft model bert.gguf cannot draft for odd" in reply.json()["error"]
    assert http.post("/api/show", json={"model": "odd"}).status_code == 404

    stored = live.store.get(Name.parse("smol"))
    manifest = json.loads(live.store.manifests.read_bytes(stored.name))
    layer = {"mediaType": "application/vnd.ollama.image.draft", "digest": bert.digest, "size": bert.size}
    manifest["layers"].append(layer)
    live.store.write_manifest(Name.parse("pulled"), json.dumps(manifest).encode())
    reply = http.post("/api/generate", json={**PROMPT, "model": "pulled"})
    assert reply.status_code == 500
    assert re.search(r"the draft model 'MiniLM.+' cannot draft for 'Smollm2.+': .*family", reply.json()["error"])
    options = {"num_predict": 2, "draft_num_predict": 0}  # without drafts it can be used
    assert http.post("/api/generate", json={**PROMPT, "model": "pulled", "options": options}).status_code == 200
