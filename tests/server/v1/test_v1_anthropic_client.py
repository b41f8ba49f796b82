"""``/v1/messages`` through the client of Anthropic."""

import re
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from v1_server import FORCED, PATTERN, WORDS, Served

pytestmark = pytest.mark.model

USER: Any = [{"role": "user", "content": "Name a colour."}]
# the client has given up temperatures; the API has not
GREEDY: Any = {"extra_body": {"temperature": 0}}
FIELDS: Any = {"model": "smol", "max_tokens": 8, **GREEDY}
WEATHER: Any = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[anthropic.Anthropic]:
    with served.anthropic() as client:
        yield client


def test_message(client: anthropic.Anthropic) -> None:
    fields = {**FIELDS, "max_tokens": 4}
    answer = client.messages.create(messages=USER, system="Be brief.", **fields)
    assert answer.type == "message" and answer.role == "assistant" and answer.id.startswith("msg_")
    assert answer.content[0].type == "text" and answer.content[0].text
    assert (answer.stop_reason, answer.stop_sequence, answer.usage.output_tokens) == ("max_tokens", None, 4)
    again = client.messages.create(messages=USER, system="Be brief.", **fields)
    assert again.usage.cache_read_input_tokens
    both = again.usage.cache_read_input_tokens + again.usage.input_tokens
    first = answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
    assert both == first


def test_stream(client: anthropic.Anthropic) -> None:
    fields: Any = {**FIELDS, "max_tokens": 40, "output_config": {"format": WORDS}}
    with client.messages.stream(messages=USER, **fields) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert final.content[0].type == "text"
    assert text == final.content[0].text and re.fullmatch(PATTERN, text), text
    assert final.stop_reason == "end_turn" and final.usage.output_tokens > 5


def test_stop_sequence(client: anthropic.Anthropic) -> None:
    fields: Any = {**FIELDS, "max_tokens": 20, "output_config": {"format": FORCED}}
    cut = client.messages.create(messages=USER, stop_sequences=["never", "between"], **fields)
    assert (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", "between")


@pytest.mark.parametrize("streams", [False, True])
def test_tools(client: anthropic.Anthropic, streams: bool) -> None:
    fields: Any = {
        "model": "smol-tools", "max_tokens": 60, **GREEDY, "tools": [WEATHER],
        "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
    }  # fmt: skip
    messages: Any = [{"role": "user", "content": "How is the weather in Rome?"}]
    if streams:
        with client.messages.stream(messages=messages, **fields) as stream:
            answer: Any = stream.get_final_message()
    else:
        answer = client.messages.create(messages=messages, **fields)
    assert answer.stop_reason == "tool_use"
    (block,) = answer.content
    assert block.type == "tool_use" and block.name == "weather" and block.input["city"] in ("Oslo", "Rome")
    result = {"type": "tool_result", "tool_use_id": block.id, "content": "sunny"}
    messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    told = client.messages.create(messages=messages, **{**fields, "tool_choice": {"type": "none"}})
    assert told.content[0].type == "text"


def test_thoughts(client: anthropic.Anthropic) -> None:
    fields = {**FIELDS, "model": "smol-thinks"}
    answer = client.messages.create(messages=USER, thinking={"type": "enabled", "budget_tokens": 1024}, **fields)
    (block,) = answer.content
    assert block.type == "thinking" and block.thinking
    # a model that cannot is asked by habit
    plain = client.messages.create(messages=USER, thinking={"type": "enabled", "budget_tokens": 1024}, **FIELDS)
    assert plain.content[0].type == "text"


def test_structured_output(client: anthropic.Anthropic) -> None:
    schema = {"type": "object", "properties": {"name": {"enum": ["teal"]}}, "required": ["name"]}
    config: Any = {"format": {"type": "json_schema", "schema": schema}}
    answer = client.messages.create(messages=USER, output_config=config, **{**FIELDS, "max_tokens": 40})
    assert answer.content[0].type == "text" and '"teal"' in answer.content[0].text


def test_count_tokens(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model="smol", messages=USER, system="Be brief.").input_tokens
    answer = client.messages.create(messages=USER, system="Be brief.", **FIELDS)
    assert counted == answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
    # all of it, also where it would not fit
    long: Any = [{"role": "user", "content": "blue " * 2000}]
    assert client.messages.count_tokens(model="smol", messages=long).input_tokens > 2000


def test_errors(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(messages=USER, **{**FIELDS, "model": "none"})
    body: Any = missing.value.body
    assert body["type"] == "error" and body["error"]["type"] == "not_found_error"
    assert missing.value.request_id == body["request_id"]
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        client.messages.create(messages=USER, **{**FIELDS, "max_tokens": 0})
    with pytest.raises(anthropic.BadRequestError, match="would run here"):
        search: Any = {"type": "web_search_20250305", "name": "web_search"}
        client.messages.create(messages=USER, tools=[search], **FIELDS)
