"""``/v1/responses`` through the client of OpenAI."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest
from v1_server import FORCED, TEXT, Served

pytestmark = pytest.mark.model

FIELDS: Any = {"model": "smol", "max_output_tokens": 8, "temperature": 0}
SHORT: Any = {**FIELDS, "max_output_tokens": 2}
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with served.openai() as client:
        yield client


def test_response(client: openai.OpenAI) -> None:
    answer = client.responses.create(input="Name a colour.", instructions="Be brief.", **SHORT)
    assert answer.object == "response" and answer.id.startswith("resp_") and answer.output_text
    assert answer.status == "incomplete" and answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage is not None and answer.usage.output_tokens == 2
    assert (answer.instructions, answer.temperature, answer.top_p, answer.store) == ("Be brief.", 0, 1, False)
    again = client.responses.create(input="Name a colour.", instructions="Be brief.", **SHORT)
    assert again.usage is not None and again.usage.input_tokens_details.cached_tokens > 0


def test_stream(client: openai.OpenAI) -> None:
    fields = {**FIELDS, "max_output_tokens": 20}
    events = list(client.responses.create(input="Name a colour.", stream=True, text={"format": FORCED}, **fields))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = list(dict.fromkeys(event.type for event in events))
    assert kinds == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        "response.output_text.delta", "response.output_text.done", "response.content_part.done",
        "response.output_item.done", "response.completed",
    ]  # fmt: skip
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == TEXT


def test_stream_helper(client: openai.OpenAI) -> None:
    with client.responses.stream(
        input="Name a colour.", instructions="Be brief.", model="smol", max_output_tokens=100, temperature=0
    ) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert stream.get_final_response().output_text == text


def test_items_as_input(client: openai.OpenAI) -> None:
    items: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "Name a colour."}]},
        {"role": "assistant", "content": "Blue."},
        {"role": "user", "content": "Another one."},
    ]
    assert client.responses.create(input=items, **FIELDS).output_text


@pytest.mark.parametrize("streams", [False, True])
def test_calls(client: openai.OpenAI, streams: bool) -> None:
    fields: Any = {
        "model": "smol-tools", "input": "How is the weather in Rome?", "tools": [WEATHER], "max_output_tokens": 60,
        "tool_choice": "required", "parallel_tool_calls": False, "temperature": 0,
    }  # fmt: skip
    if streams:
        events = list(client.responses.create(**fields, stream=True))
        assert events[-1].type == "response.completed"
        answer = events[-1].response
        delta = "".join(e.delta for e in events if e.type == "response.function_call_arguments.delta")
    else:
        answer, delta = client.responses.create(**fields), None
    (call,) = answer.output
    assert call.type == "function_call" and call.name == "weather" and call.call_id
    assert json.loads(call.arguments)["city"] in ("Oslo", "Rome")
    assert delta in (None, call.arguments)
    items: Any = [
        {"role": "user", "content": fields["input"]},
        call.model_dump(),
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
    ]
    assert client.responses.create(**{**fields, "input": items, "tool_choice": "none"}).output_text


class Colour(pydantic.BaseModel):
    name: str


def test_structured_output(client: openai.OpenAI) -> None:
    found = client.responses.parse(
        model="smol", input="Name a colour.", text_format=Colour, max_output_tokens=60, temperature=0
    )
    assert isinstance(found.output_parsed, Colour)


def test_thoughts(client: openai.OpenAI) -> None:
    fields = {**FIELDS, "model": "smol-thinks"}
    answer = client.responses.create(input="Why?", include=["reasoning.encrypted_content"], **fields)
    (item,) = answer.output
    assert item.type == "reasoning" and item.summary[0].text and item.encrypted_content == item.summary[0].text
    assert answer.usage is not None and answer.usage.output_tokens_details.reasoning_tokens > 0


def test_logprobs(client: openai.OpenAI) -> None:
    answer = client.responses.create(
        input="Name a colour.", include=["message.output_text.logprobs"], top_logprobs=2, **FIELDS
    )
    (item,) = answer.output
    assert item.type == "message" and item.content[0].type == "output_text"
    logprobs = item.content[0].logprobs
    assert logprobs and "".join(one.token for one in logprobs) == answer.output_text
    assert all(len(one.top_logprobs) == 2 for one in logprobs)


def test_what_cannot_act_is_refused(client: openai.OpenAI) -> None:
    refused: Any = [{"previous_response_id": "resp_1"}, {"store": True}, {"background": True}]
    for fields in refused:
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(input="a", **FIELDS, **fields)
        assert caught.value.param == next(iter(fields))
