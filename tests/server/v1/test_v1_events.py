"""Streams, written from chunks and read back: what is put together from the events is what went in."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyggml_server.api.tasks import Chunk
from pyggml_server.api.tasks import Final as FinalItem
from pyggml_server.api.v1.answers import Counts
from pyggml_server.api.v1.anthropic_events import MessageEvents
from pyggml_server.api.v1.chat_stream import ChatChunks
from pyggml_server.api.v1.common_types import LogProbItem
from pyggml_server.api.v1.completion_stream import TextChunks
from pyggml_server.api.v1.ids import Stamp
from pyggml_server.api.v1.responses_events import ResponseEvents
from pyggml_server.api.v1.responses_items import new_response
from pyggml_server.api.v1.responses_types import ResponsesRequest
from pyggml_server.templates import ToolCall

STAMP = Stamp("id-1", 12, 'mod"el\n')
ARGUMENTS = st.dictionaries(st.text(max_size=5), st.integers(-9, 9) | st.text(max_size=5), max_size=3)
CALL = st.builds(
    ToolCall, id=st.just("call_1"), index=st.just(0), name=st.sampled_from(["f", "g"]), arguments=ARGUMENTS
)
# as the parser gives them: thoughts, text and calls in any mixture, each possibly empty
CHUNK = st.builds(
    Chunk,
    content=st.text(max_size=8),
    thinking=st.text(max_size=8),
    tool_calls=st.lists(CALL, max_size=2),
    tokens=st.lists(st.integers(0, 99), max_size=3),
)
CHUNKS = st.lists(CHUNK, max_size=6)
REASON = st.sampled_from(["stop", "length"])


def events(frames: Iterable[bytes]) -> Iterator[tuple[str | None, Any]]:
    """Names and documents of server-sent events; each frame is one, exactly."""
    for frame in frames:
        assert frame.endswith(b"\n\n") and frame.count(b"\n\n") == 1
        lines = frame.decode().rstrip("\n").split("\n")
        name = lines.pop(0).removeprefix("event: ") if lines[0].startswith("event: ") else None
        assert len(lines) == 1 and lines[0].startswith("data: ")
        yield name, json.loads(lines[0][6:])


def arguments_of(chunks: list[Chunk]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(call.name, call.arguments) for chunk in chunks for call in chunk.tool_calls]


@settings(deadline=None, max_examples=60)
@given(chunks=CHUNKS, reason=REASON, usage=st.booleans())
def test_chat_chunks(chunks: list[Chunk], reason: str, usage: bool) -> None:
    writer = ChatChunks(STAMP, index=3, usage=usage)
    found = [e for _, e in events([*(f for chunk in chunks for f in writer.write(chunk)), writer.finish(reason)])]
    assert all(e["model"] == STAMP.model and e["object"] == "chat.completion.chunk" for e in found)
    assert all(("usage" in e) == usage and e.get("usage") is None for e in found)
    choices = [e["choices"][0] for e in found]
    assert {choice["index"] for choice in choices} == {3}
    deltas = [choice["delta"] for choice in choices]
    assert [i for i, delta in enumerate(deltas) if "role" in delta] == [0]
    assert "".join(d.get("content") or "" for d in deltas) == "".join(c.content for c in chunks)
    assert "".join(d.get("reasoning", "") for d in deltas) == "".join(c.thinking for c in chunks)
    calls = [call for d in deltas for call in d.get("tool_calls", ())]
    assert [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls] == arguments_of(chunks)
    assert [call["index"] for call in calls] == list(range(len(calls)))
    expected = "tool_calls" if calls and reason == "stop" else reason
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + [expected]


def test_logprobs_go_with_the_first_delta_of_a_chunk() -> None:
    writer = ChatChunks(STAMP, index=0, usage=False)
    item = LogProbItem("a", -0.5, [97], [])
    frames = list(writer.write(Chunk(thinking="x", content="a"), [item]))
    found = [e["choices"][0] for _, e in events(frames)]
    assert [len((choice.get("logprobs") or {}).get("content", ())) for choice in found] == [1, 0]
    # a token that shows no text yet still has its logarithm
    assert len(list(writer.write(Chunk(), [item]))) == 1


@settings(deadline=None, max_examples=60)
@given(chunks=CHUNKS, reason=REASON, echo=st.text(max_size=5))
def test_text_chunks(chunks: list[Chunk], reason: str, echo: str) -> None:
    writer = TextChunks(STAMP, index=1, usage=False, echo=echo)
    frames = [*(frame for chunk in chunks if (frame := writer.write(chunk))), writer.finish(reason)]
    choices = [e["choices"][0] for _, e in events(frames)]
    assert "".join(choice["text"] for choice in choices) == echo + "".join(c.content for c in chunks)
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + [reason]


def final(reason: str = "stop", **fields: Any) -> FinalItem:
    return FinalItem(reason=reason, **{"prompt_tokens": 7, "cached_tokens": 3, "eval_tokens": 5, **fields})


@settings(deadline=None, max_examples=60)
@given(chunks=CHUNKS, reason=REASON)
def test_response_events(chunks: list[Chunk], reason: str) -> None:
    writer = ResponseEvents(new_response(ResponsesRequest(model="m"), STAMP))
    frames = [*writer.begin(), *(f for chunk in chunks for f in writer.write(chunk)), *writer.finish(final(reason))]
    found = list(events(frames))
    assert [e["type"] for _, e in found] == [name for name, _ in found]
    assert [e["sequence_number"] for _, e in found] == list(range(len(found)))
    assert [name for name, _ in found[:2]] == ["response.created", "response.in_progress"]
    last = found[-1][1]["response"]
    assert last == writer.response
    assert last["status"] == ("incomplete" if reason == "length" else "completed")
    assert last["usage"]["input_tokens_details"]["cached_tokens"] == 3
    # every item opens, is filled and closes in its turn, and ends up in the response
    opened: list[Any] = []
    texts: dict[str, str] = {}
    for name, event in found[2:-1]:
        if name == "response.output_item.added":
            assert event["output_index"] == len(opened)
            opened.append(event["item"]["id"])
            texts[event["item"]["id"]] = ""
        elif name == "response.output_item.done":
            item = event["item"]
            assert item == last["output"][event["output_index"]] and item["id"] == opened[-1]
            assert texts[item["id"]] == _text(item)
        else:
            assert event["item_id"] == opened[-1] and event["output_index"] == len(opened) - 1
            texts[event["item_id"]] += event.get("delta", "")
    output = last["output"]
    assert len(output) == len(opened)
    assert "".join(_text(i) for i in output if i["type"] == "message") == "".join(c.content for c in chunks)
    assert "".join(_text(i) for i in output if i["type"] == "reasoning") == "".join(c.thinking for c in chunks)
    calls = [(i["name"], json.loads(i["arguments"])) for i in output if i["type"] == "function_call"]
    assert calls == arguments_of(chunks)


def _text(item: dict[str, Any]) -> str:
    if item["type"] == "message":
        return "".join(part["text"] for part in item["content"])
    if item["type"] == "reasoning":
        return "".join(part["text"] for part in item["summary"])
    return str(item["arguments"])


def test_a_response_that_breaks() -> None:
    writer = ResponseEvents(new_response(ResponsesRequest(model="m"), STAMP))
    found = list(events([*writer.begin(), *writer.write(Chunk(content="a")), writer.fail("the runner died")]))
    name, event = found[-1]
    assert name == "response.failed" and event["sequence_number"] == len(found) - 1
    assert event["response"]["error"] == {"code": "server_error", "message": "the runner died"}


@settings(deadline=None, max_examples=60)
@given(chunks=CHUNKS, reason=REASON, stop=st.none() | st.just("###"))
def test_message_events(chunks: list[Chunk], reason: str, stop: str | None) -> None:
    writer = MessageEvents("msg_1", "m", n_prompt=7)
    frames = [writer.begin(), *(f for chunk in chunks for f in writer.write(chunk))]
    found = list(events([*frames, *writer.finish(final(reason, stop_string=stop))]))
    assert [e["type"] for _, e in found] == [name for name, _ in found]
    assert [name for name, _ in found[-2:]] == ["message_delta", "message_stop"]
    assert found[0][1]["message"]["id"] == "msg_1"
    blocks: list[dict[str, Any]] = []
    open_index = -1
    for name, event in found[1:-2]:
        if name == "content_block_start":
            assert open_index == -1 and event["index"] == len(blocks)
            open_index = event["index"]
            blocks.append({**event["content_block"], "partial": ""})
            continue
        assert event["index"] == open_index
        if name == "content_block_delta":
            kind = event["delta"]["type"].removesuffix("_delta")
            blocks[-1]["partial"] += event["delta"]["partial_json" if kind == "input_json" else kind]
        else:
            assert name == "content_block_stop"
            open_index = -1
    assert open_index == -1
    assert [block["type"] for block in blocks] == [block["type"] for block in writer.reply.content]
    for seen, kept in zip(blocks, writer.reply.content, strict=True):
        partial = json.loads(seen["partial"]) if seen["type"] == "tool_use" else seen["partial"]
        assert partial == kept["input" if seen["type"] == "tool_use" else seen["type"]]
    assert "".join(b["text"] for b in writer.reply.content if b["type"] == "text") == "".join(c.content for c in chunks)
    reasons = {("length", True): "max_tokens", ("length", False): "max_tokens", ("stop", True): "tool_use"}
    expected = reasons.get((reason, bool(arguments_of(chunks))), "end_turn" if stop is None else "stop_sequence")
    assert writer.reply.stop_reason == found[-2][1]["delta"]["stop_reason"] == expected
    assert found[-2][1]["usage"]["cache_read_input_tokens"] == 3


def test_counts_of_several_answers() -> None:
    counts = Counts()
    for prompt in (0, 0, 1):
        counts.add(final(dropped_messages=2), prompt=prompt)
    usage = counts.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (14, 15, 29)
    assert usage.prompt_tokens_details.cached_tokens == 6
    assert usage.truncated == {"messages": 4, "tokens": 0, "shifts": 0}


@pytest.mark.parametrize("n_chunks", [0, 1])
def test_nothing_said_is_still_an_answer(n_chunks: int) -> None:
    writer = MessageEvents("msg_1", "m", n_prompt=1)
    for _ in range(n_chunks):
        assert list(writer.write(Chunk())) == []
    assert len(list(writer.finish(final()))) == 2
    assert writer.reply.content == []
