"""Tools: told to the model, called by it, forced by grammar."""

import json
from typing import Any

import httpx2
import pytest

pytestmark = pytest.mark.model


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


WEATHER = tool("weather", city={"enum": ["Rome", "Oslo"]}, days={"type": "integer", "minimum": 1, "maximum": 3})
CLOCK = tool("clock", zone={"enum": ["UTC"]})
ASK = [{"role": "user", "content": "How is the weather in Rome?"}]
BODY: dict[str, Any] = {
    "model": "tools",
    "messages": ASK,
    "tools": [WEATHER, CLOCK],
    "options": {"num_predict": 60, "num_ctx": 512},
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_tool_that_must_be_called(http: httpx2.Client, stream: bool, choice: Any) -> None:
    """Rows 16 to 19."""
    body = {**BODY, "stream": stream, "tool_choice": choice, "parallel_tool_calls": False}
    parts = [json.loads(line) for line in http.post("/api/chat", json=body).text.splitlines()]
    calls = [call for part in parts for call in part["message"].get("tool_calls", [])]
    (call,) = calls
    assert call["id"].startswith("call_")
    assert len(call["id"]) == len("call_") + 8
    function = call["function"]
    assert function["index"] == 0
    wanted = ("weather",) if choice != "required" else ("weather", "clock")
    assert function["name"] in wanted
    if function["name"] == "weather":
        assert list(function["arguments"]) == ["city", "days"], "in the order of the schema"
        assert function["arguments"]["city"] in ("Rome", "Oslo")
    assert "".join(part["message"]["content"] for part in parts).strip() == ""
    assert parts[-1]["done"] is True


def test_a_call_behind_thoughts_in_channels(http: httpx2.Client) -> None:
    """The first pass ends at a comma; the call stands in a header of its own."""
    closed = json.loads(json.dumps(CLOCK))
    closed["function"]["parameters"]["additionalProperties"] = False
    body = {**BODY, "model": "channels", "tools": [closed], "tool_choice": "required", "stream": False}
    answer = http.post("/api/chat", json={**body, "options": {"num_predict": 60, "stop": [","]}}).json()
    (call,) = answer["message"]["tool_calls"]
    assert (call["function"]["name"], call["function"]["arguments"]) == ("clock", {"zone": "UTC"})
    assert answer["message"]["content"] == ""
    body = {"model": "channels", "messages": ASK, "format": {"type": "choice", "choices": ["red"]}, "stream": False}
    for think, limit in ((True, 60), (False, 4)):
        answer = http.post(
            "/api/chat", json={**body, "think": think, "options": {"num_predict": limit, "stop": [","]}}
        ).json()
        assert answer["message"]["content"] == "red"


def test_a_raw_prompt_is_taken_as_it_is(http: httpx2.Client) -> None:
    """Also where the model's template would open a channel for what a grammar demands."""
    text = "Hello<|start|>assistant"
    body = {"model": "channels", "prompt": text, "raw": True, "format": {"type": "choice", "choices": ["red"]}}
    answer = http.post("/api/generate", json={**body, "stream": False}).json()
    assert answer["response"] == "red"
    count = http.post("/api/tokenize", json={"model": "channels", "text": text}).json()["count"]
    assert answer["prompt_eval_count"] == count


def test_a_call_that_is_cut_off_is_withheld(http: httpx2.Client) -> None:
    body = {**BODY, "tool_choice": "required", "stream": False, "options": {"num_predict": 8}}
    answer = http.post("/api/chat", json=body).json()
    assert (answer["done_reason"], answer["eval_count"]) == ("length", 8)
    assert answer["message"] == {"role": "assistant", "content": ""}


def test_one_call_only(http: httpx2.Client) -> None:
    """Row 20."""
    both = {**BODY, "tool_choice": "required", "stream": False, "options": {"num_predict": 100, "num_ctx": 512}}
    single = http.post("/api/chat", json={**both, "parallel_tool_calls": False}).json()
    assert len(single["message"]["tool_calls"]) == 1
    many = http.post("/api/chat", json=both).json()
    assert len(many["message"]["tool_calls"]) >= 1
    assert [call["function"]["index"] for call in many["message"]["tool_calls"]] == list(
        range(len(many["message"]["tool_calls"]))
    )


def test_a_conversation_with_a_tool(http: httpx2.Client) -> None:
    """Rows 14 and 15."""
    made = {"function": {"name": "weather", "arguments": {"city": "Rome", "days": 1}}}
    messages = [
        *ASK,
        {"role": "assistant", "content": "", "tool_calls": [made]},
        {"role": "tool", "tool_name": "weather", "content": "sunny"},
    ]
    body = {**BODY, "messages": messages}
    shown = http.post("/api/chat", json={**body, "_debug_render_only": True}).json()
    prompt = shown["_debug_info"]["rendered_template"]
    assert '"name": "weather", "arguments": {"city":' in prompt.replace('{"city": ', '{"city":').replace("  ", " ")
    assert "<|im_start|>tool\nsunny" in prompt
    assert '"clock"' in prompt
    assert http.post("/api/chat", json={**body, "stream": False}).json()["done"] is True
    hidden = http.post("/api/chat", json={**body, "tool_choice": "none", "_debug_render_only": True}).json()
    assert '"clock"' not in hidden["_debug_info"]["rendered_template"]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"model": "thinks"}, "registry.ollama.ai/library/thinks:latest does not support tools"),
        (
            {"tool_choice": {"name": "other"}},
            "tool_choice must be auto, none, required or the name of one of the tools",
        ),
        ({"tool_choice": "required", "tools": []}, "tool_choice demands a call, but there are no tools"),
        ({"tool_choice": "required", "format": "json"}, "format and a tool_choice that demands a call exclude"),
        ({"tools": [{"type": "function"}]}, "tools[0] must be an object with a function that has a name"),
    ],
)
def test_refused(http: httpx2.Client, fields: dict[str, Any], error: str) -> None:
    answer = http.post("/api/chat", json={**BODY, **fields})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(error)
