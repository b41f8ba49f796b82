"""Ollama's routes on a real server with a real model, as plain HTTP."""

import json
from typing import Any

import httpx2
import pytest

pytestmark = pytest.mark.model

MODEL = "smol"
ASK = [{"role": "user", "content": "Say hello."}]


def lines(response: httpx2.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in response.text.splitlines()]


def unload(http: httpx2.Client) -> None:
    """Models of the same file share a runner, which is named after the one that came first."""
    http.post("/api/generate", json={"model": MODEL, "keep_alive": 0})


def test_banner_and_version(http: httpx2.Client) -> None:
    for method in ("GET", "HEAD"):
        assert http.request(method, "/").status_code == 200
        assert http.request(method, "/api/version").status_code == 200
    assert http.get("/").text == "Ollama is running"
    assert "." in http.get("/api/version").json()["version"]
    assert http.get("/api/status").json()["cloud"]["disabled"] is True
    assert http.get("/health").json() == {"status": "ok"}


def test_unknown_routes(http: httpx2.Client) -> None:
    assert (http.get("/api/nothing").status_code, http.get("/api/nothing").text) == (404, "404 page not found")
    assert http.put("/api/chat").status_code == 405


def test_chat_streams_lines(http: httpx2.Client) -> None:
    answer = http.post("/api/chat", json={"model": MODEL, "messages": ASK})
    assert answer.headers["content-type"] == "application/x-ndjson"
    parts = lines(answer)
    assert len(parts) > 2
    for part in parts[:-1]:
        assert part["done"] is False
        assert set(part) == {"model", "created_at", "message", "done"}, "absent where there is nothing to say"
        assert part["message"]["role"] == "assistant"
    last = parts[-1]
    assert last["done"] is True
    assert last["done_reason"] in ("stop", "length")
    assert last["eval_count"] > 0
    assert last["prompt_eval_count"] > 10
    assert last["total_duration"] >= last["eval_duration"] > 1000, "nanoseconds"
    assert last["message"] == {"role": "assistant", "content": ""}


def test_not_streamed_is_the_same(http: httpx2.Client) -> None:
    body = {"model": MODEL, "messages": ASK}
    streamed = "".join(part["message"]["content"] for part in lines(http.post("/api/chat", json=body)))
    answer = http.post("/api/chat", json={**body, "stream": False})
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.json()["message"]["content"] == streamed
    assert answer.json()["done"] is True


def test_generate_and_context(http: httpx2.Client) -> None:
    body = {"model": MODEL, "prompt": "My name is Ada.", "stream": False}
    first = http.post("/api/generate", json=body).json()
    assert first["response"]
    assert len(first["context"]) > first["eval_count"]
    again = {"model": MODEL, "prompt": "Who am I?", "context": first["context"], "stream": False}
    second = http.post("/api/generate", json=again).json()
    assert second["context"][: len(first["context"])] == first["context"]
    assert second["prompt_eval_count"] > len(first["context"])
    shown = http.post("/api/generate", json={**again, "_debug_render_only": True}).json()
    assert "My name is Ada." in shown["_debug_info"]["rendered_template"]


def test_raw_and_template_and_system(http: httpx2.Client) -> None:
    raw = http.post("/api/generate", json={"model": MODEL, "prompt": "1 2 3", "raw": True, "stream": False}).json()
    assert "context" not in raw
    assert raw["prompt_eval_count"] < 10
    for field, value in (("template", "x"), ("system", "x"), ("context", [1])):
        bad = http.post("/api/generate", json={"model": MODEL, "prompt": "a", "raw": True, field: value})
        assert bad.status_code == 400
        assert bad.json() == {"error": "raw mode does not support template, system, or context"}
    body = {"model": MODEL, "prompt": "P", "system": "S", "_debug_render_only": True}
    assert "S" in http.post("/api/generate", json=body).json()["_debug_info"]["rendered_template"]
    body["template"] = "<{{ .System }}|{{ .Prompt }}>"
    assert http.post("/api/generate", json=body).json()["_debug_info"]["rendered_template"] == "<S|P>"


def test_load_and_unload(http: httpx2.Client) -> None:
    unload(http)
    loaded = http.post("/api/generate", json={"model": MODEL}).json()
    assert (loaded["done"], loaded["done_reason"], loaded["response"]) == (True, "load", "")
    assert f"{MODEL}:latest" in [m["name"] for m in http.get("/api/ps").json()["models"]]
    # another name of the same weights will do
    gone = http.post("/api/chat", json={"model": "thinks", "keep_alive": 0}).json()
    assert (gone["done_reason"], gone["message"]) == ("unload", {"role": "assistant", "content": ""})
    assert f"{MODEL}:latest" not in [m["name"] for m in http.get("/api/ps").json()["models"]]


def test_load_progress(http: httpx2.Client) -> None:
    http.post("/api/chat", json={"model": MODEL, "keep_alive": 0})
    body = {"model": MODEL, "messages": ASK, "load_progress": True}
    parts = lines(http.post("/api/chat", json=body))
    told = [part["load_progress"] for part in parts if "load_progress" in part]
    assert [told[-1]["status"], told[-1]["fraction"]] == ["ready", 1.0]
    assert len(told) > 1, "the model was not loaded before"
    assert parts[-1]["done"] is True
    assert parts[-1]["load_duration"] > 0


def test_ps(http: httpx2.Client) -> None:
    unload(http)
    http.post("/api/generate", json={"model": MODEL, "keep_alive": -1})
    (model,) = (m for m in http.get("/api/ps").json()["models"] if m["name"] == f"{MODEL}:latest")
    assert model["context_length"] == 256
    assert model["expires_at"].startswith("9999")
    assert model["size"] > 50_000_000
    assert model["details"]["family"] == "llama"
    http.post("/api/generate", json={"model": MODEL, "keep_alive": "10m"})
    (model,) = (m for m in http.get("/api/ps").json()["models"] if m["name"] == f"{MODEL}:latest")
    assert model["expires_at"].startswith("20")


def test_stop_and_num_predict(http: httpx2.Client) -> None:
    body: dict[str, Any] = {"model": MODEL, "prompt": "1 2 3 4 5 6", "raw": True, "stream": False}
    plain = http.post("/api/generate", json={**body, "options": {"num_predict": 6}}).json()
    assert (plain["eval_count"], plain["done_reason"]) == (6, "length")
    cut = plain["response"].strip().split()[1]
    stopped = http.post("/api/generate", json={**body, "options": {"stop": [cut]}}).json()
    assert stopped["done_reason"] == "stop"
    assert cut not in stopped["response"]
    assert stopped["stop_string"] == cut


def test_logit_bias_acts(http: httpx2.Client) -> None:
    ids = http.post("/api/tokenize", json={"model": MODEL, "text": " cat"}).json()["tokens"]
    body: dict[str, Any] = {"model": MODEL, "prompt": "I like my", "raw": True, "stream": False}
    forced = {"logit_bias": {str(ids[0]): 100}, "num_predict": 3}
    assert http.post("/api/generate", json={**body, "options": forced}).json()["response"] == " cat cat cat"


def test_seed(http: httpx2.Client) -> None:
    def answer(seed: int) -> str:
        options = {"temperature": 1.5, "num_predict": 6, "top_k": 0, "seed": seed}
        body = {"model": MODEL, "prompt": "I like my", "raw": True, "stream": False, "options": options}
        text: str = http.post("/api/generate", json=body).json()["response"]
        return text

    answer(4)  # what is cached changes the shapes of batches, and so the last bits: from now on it is the same
    assert answer(5) == answer(5) != answer(6)


def test_logprobs(http: httpx2.Client) -> None:
    body = {"model": MODEL, "messages": ASK, "logprobs": True, "top_logprobs": 3}
    parts = lines(http.post("/api/chat", json=body))
    entries = [entry for part in parts for entry in part.get("logprobs", [])]
    assert len(entries) == parts[-1]["eval_count"]
    for entry in entries:
        assert entry["logprob"] <= 0
        assert bytes(entry["bytes"]).decode("utf-8", "replace") == entry["token"]
        assert len(entry["top_logprobs"]) == 3
        assert entry["top_logprobs"][0]["logprob"] == pytest.approx(entry["logprob"], abs=1e-4), "greedy"
    text = "".join(part["message"]["content"] for part in parts)
    assert "".join(entry["token"] for entry in entries).startswith(text[:5])


@pytest.mark.parametrize(
    ("format", "check"),
    [
        ({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, lambda t: json.loads(t)["n"]),
        ({"type": "choice", "choices": ["red", "green"]}, lambda t: t in ("red", "green")),
        ({"type": "regex", "pattern": "[0-9]{3}"}, lambda t: len(t) == 3 and t.isdigit()),
        ({"type": "gbnf", "grammar": 'root ::= "yes" | "no"'}, lambda t: t in ("yes", "no")),
        ({"type": "lark", "grammar": 'start: "up" | "down"'}, lambda t: t in ("up", "down")),
    ],
)
def test_formats(http: httpx2.Client, format: Any, check: Any) -> None:
    body = {"model": MODEL, "messages": ASK, "format": format, "stream": False, "options": {"num_predict": 40}}
    answer = http.post("/api/chat", json=body).json()
    assert answer["done_reason"] == "stop"
    assert check(answer["message"]["content"]) is not False


def test_tokens_that_a_grammar_forces_count(http: httpx2.Client) -> None:
    choice = {"type": "choice", "choices": ["Teal is a colour between blue and green, and there is no more to say."]}
    body = {"model": MODEL, "messages": ASK, "format": choice, "stream": False}
    plain = http.post("/api/chat", json={**body, "options": {"num_predict": 40}}).json()
    assert (plain["message"]["content"], plain["done_reason"]) == (choice["choices"][0], "stop")
    assert plain["eval_count"] > 10
    assert plain["eval_duration"] > 0
    told = http.post("/api/chat", json={**body, "options": {"num_predict": 40}, "logprobs": True}).json()
    assert told["eval_count"] == len(told["logprobs"]) == plain["eval_count"]
    assert "".join(entry["token"] for entry in told["logprobs"]) == choice["choices"][0]
    cut = http.post("/api/chat", json={**body, "options": {"num_predict": 5}}).json()
    assert (cut["eval_count"], cut["done_reason"]) == (5, "length")


def test_truncation_is_reported_and_can_be_refused(http: httpx2.Client) -> None:
    long = [{"role": "user", "content": "word " * 150}, {"role": "assistant", "content": "ok"}, *ASK, *ASK]
    body = {"model": MODEL, "messages": [*long[:2], *long], "stream": False, "options": {"num_predict": 2}}
    answer = http.post("/api/chat", json=body).json()
    assert answer["truncated"] is True
    assert answer["dropped_messages"] >= 1
    assert answer["num_ctx"] == 256
    refused = http.post("/api/chat", json={**body, "truncate": False})
    assert refused.status_code == 400
    assert "the input length exceeds the context length" in refused.json()["error"]
    short = http.post("/api/chat", json={"model": MODEL, "messages": ASK, "stream": False}).json()
    assert "truncated" not in short


def test_a_text_too_long_is_cut_and_reported(http: httpx2.Client) -> None:
    body = {"model": MODEL, "prompt": "word " * 400, "raw": True, "stream": False, "options": {"num_predict": 2}}
    answer = http.post("/api/generate", json=body).json()
    assert answer["truncated"] is True
    assert answer["dropped_tokens"] > 100


def test_no_shift_ends_at_the_end_of_the_context(http: httpx2.Client) -> None:
    body: dict[str, Any] = {"model": MODEL, "prompt": "word " * 245, "raw": True, "stream": False, "shift": False}
    body["options"] = {"num_predict": 24, "ignore_eos": True}
    answer = http.post("/api/generate", json=body).json()
    assert answer["done_reason"] == "length"
    assert answer["eval_count"] < 20
    shifted = http.post("/api/generate", json={**body, "shift": True}).json()
    assert shifted["eval_count"] == 24
    assert shifted["context_shifts"] >= 1


def test_cached_tokens_are_reported(http: httpx2.Client) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me about the sea."}], "stream": False}
    http.post("/api/chat", json=body)
    answer = http.post("/api/chat", json=body).json()
    assert answer["prompt_eval_cached_count"] >= answer["prompt_eval_count"] - 2


def test_embed(http: httpx2.Client) -> None:
    texts = ["why is the sky blue?", "warum ist der Himmel blau?"]
    answer = http.post("/api/embed", json={"model": "minilm", "input": texts}).json()
    assert answer["prompt_eval_count"] > 10
    for vector in answer["embeddings"]:
        assert len(vector) == 384
        assert sum(x * x for x in vector) == pytest.approx(1, abs=1e-4)
    one = http.post("/api/embed", json={"model": "minilm", "input": texts[0]}).json()
    assert one["embeddings"][0] == pytest.approx(answer["embeddings"][0], abs=1e-3)
    short = http.post("/api/embed", json={"model": "minilm", "input": texts, "dimensions": 8}).json()
    assert [len(v) for v in short["embeddings"]] == [8, 8]
    assert sum(x * x for x in short["embeddings"][0]) == pytest.approx(1, abs=1e-4)
    assert http.post("/api/embed", json={"model": "minilm"}).json()["embeddings"] == []


def test_embed_truncation(http: httpx2.Client) -> None:
    body = {"model": "minilm", "input": "word " * 2000}
    assert http.post("/api/embed", json=body).json()["truncated"] == 1
    refused = http.post("/api/embed", json={**body, "truncate": False})
    assert refused.status_code == 400
    assert "the input length exceeds the context length" in refused.json()["error"]
    bad = http.post("/api/embed", json={"model": "minilm", "input": 5})
    assert (bad.status_code, bad.json()) == (400, {"error": "invalid input type"})


def test_old_embeddings_are_not_normalised(http: httpx2.Client) -> None:
    vector = http.post("/api/embeddings", json={"model": MODEL, "prompt": "hello"}).json()["embedding"]
    assert len(vector) == 576
    assert sum(x * x for x in vector) > 2
    assert http.post("/api/embeddings", json={"model": MODEL}).json() == {"embedding": []}


def test_tokenize(http: httpx2.Client) -> None:
    text = "Grüße, Welt 🌍"
    answer = http.post("/api/tokenize", json={"model": MODEL, "text": text, "with_pieces": True}).json()
    assert answer["count"] == len(answer["tokens"]) > 3
    assert b"".join(bytes(piece["bytes"]) for piece in answer["pieces"]).decode() == text
    back = http.post("/api/detokenize", json={"model": MODEL, "tokens": answer["tokens"]}).json()
    assert back["text"] == text
    chat = http.post("/api/tokenize", json={"model": MODEL, "messages": ASK}).json()
    assert "Say hello." in chat["prompt"]
    bad = http.post("/api/detokenize", json={"model": MODEL, "tokens": [10**9]})
    assert (bad.status_code, "not in the vocabulary" in bad.json()["error"]) == (400, True)
    assert http.post("/api/tokenize", json={"model": MODEL}).status_code == 400


def test_tokenize_loads_nothing(http: httpx2.Client) -> None:
    http.post("/api/generate", json={"model": MODEL, "keep_alive": 0})
    http.post("/api/tokenize", json={"model": MODEL, "text": "hello"})
    assert f"{MODEL}:latest" not in [model["name"] for model in http.get("/api/ps").json()["models"]]


def test_metrics(http: httpx2.Client) -> None:
    unload(http)
    http.post("/api/chat", json={"model": MODEL, "messages": ASK, "stream": False})
    page = http.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    for line in (
        'pyggml_answers_total{model="smol:latest"',
        'pyggml_tokens_total{kind="eval",model="smol:latest"}',
        'pyggml_model_queued_requests{model="smol:latest"} 0.0',
        'pyggml_runner_counter{model="smol:latest",name=',
        'pyggml_http_requests_total{method="POST",route="/api/chat",status="200"}',
    ):
        assert line in page.text, line
