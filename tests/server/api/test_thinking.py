"""Thoughts stand apart from the answer, and a format binds the answer alone."""

import json
from typing import Any

import httpx2
import pytest

pytestmark = pytest.mark.model

BODY: dict[str, Any] = {"model": "thinks", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}


def test_thoughts_come_apart(http: httpx2.Client) -> None:
    """Row 21: the template opens the thoughts, the model does not end them."""
    parts = [json.loads(line) for line in http.post("/api/chat", json=BODY).text.splitlines()]
    assert "".join(part["message"].get("thinking", "") for part in parts)
    assert "".join(part["message"]["content"] for part in parts) == ""
    whole = http.post("/api/generate", json={"model": "thinks", "prompt": "Why?", "stream": False}).json()
    assert (bool(whole["thinking"]), whole["response"]) == (True, "")


def test_no_thoughts(http: httpx2.Client) -> None:
    message = http.post("/api/chat", json={**BODY, "think": False, "stream": False}).json()["message"]
    assert message["content"]
    assert "thinking" not in message


@pytest.mark.parametrize("stream", [True, False])
def test_format_binds_the_answer_alone(http: httpx2.Client, stream: bool) -> None:
    """Row 26: the thoughts end at the first full stop, the answer is one of two words."""
    options = {"stop": [".", ","], "num_predict": 60}
    body = {**BODY, "stream": stream, "options": options, "format": {"type": "choice", "choices": ["red", "green"]}}
    parts = [json.loads(line) for line in http.post("/api/chat", json=body).text.splitlines()]
    thoughts = "".join(part["message"].get("thinking", "") for part in parts)
    assert len(thoughts) > 5
    assert "".join(part["message"]["content"] for part in parts) in ("red", "green")
    assert parts[-1]["eval_count"] > 3, "both passes are counted"
    assert parts[-1]["prompt_eval_count"] < 40, "the prompt is counted once"


def test_without_thoughts_there_is_one_pass(http: httpx2.Client) -> None:
    form = {"type": "choice", "choices": ["red", "green"]}
    message = http.post("/api/chat", json={**BODY, "think": False, "stream": False, "format": form}).json()["message"]
    assert message["content"] in ("red", "green")


def test_thoughts_of_earlier_answers_are_left_out(http: httpx2.Client) -> None:
    """Row 23."""
    history = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "<think>secret</think>two"},
        {"role": "user", "content": "three"},
    ]
    shown = http.post("/api/chat", json={**BODY, "messages": history, "_debug_render_only": True}).json()
    prompt = shown["_debug_info"]["rendered_template"]
    assert "secret" not in prompt
    assert "two" in prompt
