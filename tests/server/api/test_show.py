"""``/api/show`` and ``/api/tags``: what they tell of a model."""

import httpx2
import pytest

from pyggml_server.store import parameter_lines

pytestmark = pytest.mark.model


def test_verbose(http: httpx2.Client) -> None:
    short = http.post("/api/show", json={"model": "smol"}).json()
    assert "tensors" not in short
    assert short["model_info"]["tokenizer.ggml.tokens"] is None
    assert "general.name" not in short["model_info"]
    assert "tokenizer.chat_template" not in short["model_info"]
    full = http.post("/api/show", json={"model": "smol", "verbose": True}).json()
    assert len(full["model_info"]["tokenizer.ggml.tokens"]) == 49152
    assert {"name": "token_embd.weight", "type": full["tensors"][0]["type"], "shape": [576, 49152]} in [
        {**tensor, "type": full["tensors"][0]["type"]} for tensor in full["tensors"]
    ]


def test_overrides(http: httpx2.Client) -> None:
    body = {"name": "smol", "system": "Be brief.", "template": "<{{ .Prompt }}>", "options": {"top_k": 3}}
    shown = http.post("/api/show", json=body).json()
    assert shown["system"] == "Be brief."
    assert shown["template"] == "<{{ .Prompt }}>"
    assert 'SYSTEM "Be brief."' in shown["modelfile"]
    assert "top_k                          3" in shown["parameters"].splitlines()


def test_what_is_recorded(http: httpx2.Client) -> None:
    recorded = {"renderer": "qwen3-coder", "parser": "qwen3", "requires": "0.14.0"}
    made = http.post("/api/create", json={"model": "recorded", "from": "smol", "stream": False, **recorded})
    assert made.json() == {"status": "success"}
    shown = http.post("/api/show", json={"model": "recorded"}).json()
    assert {name: shown[name] for name in recorded} == recorded
    assert {"RENDERER qwen3-coder", "PARSER qwen3", "REQUIRES 0.14.0"} <= set(shown["modelfile"].splitlines())
    assert not recorded.keys() & http.post("/api/show", json={"model": "smol"}).json().keys()
    assert http.request("DELETE", "/api/delete", json={"model": "recorded"}).status_code == 200


def test_a_wrong_template(http: httpx2.Client) -> None:
    answer = http.post("/api/show", json={"model": "smol", "template": "{{"})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("the Go template cannot be parsed")


def test_parameters_are_padded_to_30_columns() -> None:
    lines = parameter_lines({"stop": ["<a>", "b"], "temperature": 0.5})
    assert lines == [f'{"stop":<30} "<a>"', f'{"stop":<30} "b"', f"{'temperature':<30} 0.5"]


def test_tags(http: httpx2.Client) -> None:
    models = {model["name"]: model for model in http.get("/api/tags").json()["models"]}
    smol = models["smol:latest"]
    assert smol["details"]["context_length"] == 8192
    assert smol["details"]["embedding_length"] == 576
    assert smol["capabilities"][0] == "completion"
    assert models["minilm:latest"]["capabilities"] == ["embedding"]
    assert len(smol["digest"]) == 64
    assert "T" in smol["modified_at"]
