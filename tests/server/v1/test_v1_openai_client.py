"""The routes through the client of OpenAI. What a small model cannot do by itself, a grammar makes it do."""

import asyncio
import base64
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pydantic
import pytest
from v1_server import FORCED, PATTERN, TEXT, WORDS, Served

from pyggml.gguf import GGUFFile
from pyggml.tokenizer import Tokenizer

pytestmark = pytest.mark.model

USER: Any = [{"role": "user", "content": "Name a colour."}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CLOCK: Any = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with served.openai() as client:
        yield client


@pytest.fixture(scope="module")
def tokenizer(smollm2_path: Path) -> Tokenizer:
    with GGUFFile(smollm2_path) as file:
        return Tokenizer.from_metadata(file.metadata)


# -- chat -----------------------------------------------------------------------------------------------------------


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="smol", messages=USER, max_tokens=8, temperature=0)
    assert answer.object == "chat.completion" and answer.model == "smol" and answer.id.startswith("chatcmpl-")
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8


def test_a_stream(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="smol",
            messages=USER,
            max_tokens=40,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"response_format": WORDS},
        )
    )
    assert len(chunks) > 5
    text = "".join(c.choices[0].delta.content or "" for c in chunks[:-1])
    assert re.fullmatch(PATTERN, text), text
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert [c.choices[0].delta.role for c in chunks[:2]] == ["assistant", None]
    usage = chunks[-1].usage
    assert chunks[-1].choices == [] and usage is not None and usage.completion_tokens > 5
    # the prompt was computed for an answer before
    assert usage.prompt_tokens_details is not None and usage.prompt_tokens_details.cached_tokens


def test_several_choices(client: openai.OpenAI) -> None:
    fields: Any = {"model": "smol", "messages": USER, "max_tokens": 12, "n": 3, "seed": 5, "temperature": 1.5}
    answer = client.chat.completions.create(**fields)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3  # each has a seed of its own
    assert answer.usage is not None and answer.usage.completion_tokens > 12
    streamed, reasons = ["", "", ""], ["", "", ""]
    for chunk in client.chat.completions.create(**fields, stream=True, extra_body={"response_format": FORCED}):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
            reasons[choice.index] += choice.finish_reason or ""
    assert (streamed, reasons) == ([TEXT] * 3, ["stop"] * 3)


def test_stop(client: openai.OpenAI) -> None:
    fields: Any = {"model": "smol", "messages": USER, "max_tokens": 20, "extra_body": {"response_format": FORCED}}
    cut = client.chat.completions.create(**fields, stop=["between", "never"]).choices[0]
    assert (cut.message.content, cut.finish_reason) == ("Teal is a colour ", "stop")


def test_logit_bias(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    (token,) = tokenizer.encode("Zebra", add_special=False)[:1]
    text = tokenizer.decode([token])
    fields: Any = {"model": "smol", "messages": USER, "max_tokens": 3, "temperature": 0}
    forced = client.chat.completions.create(**fields, logit_bias={str(token): 100}).choices[0].message.content
    assert forced == text * 3
    first = client.chat.completions.create(**fields, logprobs=True).choices[0].logprobs
    assert first is not None and first.content
    usual = first.content[0]
    (usual_id,) = tokenizer.encode(usual.token, add_special=False)
    other = client.chat.completions.create(**fields, logit_bias={str(usual_id): -100}).choices[0].message.content
    assert other is not None and not other.startswith(usual.token)


def test_logprobs(client: openai.OpenAI) -> None:
    fields: Any = {"model": "smol", "messages": USER, "max_tokens": 5, "temperature": 0}
    answer = client.chat.completions.create(**fields, logprobs=True, top_logprobs=3).choices[0]
    assert answer.logprobs is not None and answer.logprobs.content is not None
    items = answer.logprobs.content
    assert "".join(item.token for item in items) == answer.message.content
    for item in items:
        assert item.logprob <= 0 and bytes(item.bytes or []).decode() == item.token
        assert len(item.top_logprobs) == 3
        assert item.top_logprobs[0].token == item.token  # greedy
        assert item.top_logprobs[0].logprob == pytest.approx(item.logprob, abs=1e-4)
    chunks = list(client.chat.completions.create(**fields, logprobs=True, stream=True))
    streamed = [c.choices[0].logprobs.content or [] for c in chunks if c.choices[0].logprobs is not None]
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert "".join(item.token for part in streamed for item in part) == text


class Person(pydantic.BaseModel):
    name: str
    age: int


def test_structured_output(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(
        model="smol", messages=[{"role": "user", "content": "Ann is 7."}], response_format=Person, max_tokens=60,
        temperature=0,
    )  # fmt: skip
    assert isinstance(parsed.choices[0].message.parsed, Person)


def test_json_and_grammars(client: openai.OpenAI) -> None:
    fields: Any = {"model": "smol", "messages": USER, "max_tokens": 40, "temperature": 0}
    choices: Any = {"response_format": {"type": "choice", "choices": ["teal", "mauve"]}}
    assert client.chat.completions.create(**fields, extra_body=choices).choices[0].message.content in ("teal", "mauve")
    text = client.chat.completions.create(**fields, response_format={"type": "json_object"}).choices[0]
    assert (text.message.content or "").lstrip().startswith("{")
    if text.finish_reason == "stop":
        json.loads(text.message.content or "")


def test_num_ctx_in_the_body(client: openai.OpenAI) -> None:
    long: Any = [{"role": "user", "content": "blue " * 400}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="smol", messages=long, max_tokens=2, extra_body={"num_ctx": 64, "truncate": False}
        )
    assert caught.value.code == "context_length_exceeded"
    many: Any = [{"role": "user", "content": f"{number}: name a colour."} for number in range(12)]
    cut = client.chat.completions.create(
        model="smol", messages=many, max_tokens=2, extra_body={"options": {"num_ctx": 64}}
    )
    assert cut.usage is not None and cut.usage.prompt_tokens <= 64
    assert cut.usage.to_dict()["truncated"]["messages"] > 3  # type: ignore[index]
    whole = client.chat.completions.create(model="smol", messages=many, max_tokens=2)
    assert whole.usage is not None and "truncated" not in whole.usage.to_dict()


@pytest.mark.parametrize("streams", [False, True])
def test_a_tool_that_must_be_called(client: openai.OpenAI, streams: bool) -> None:
    fields: Any = {
        "model": "smol-tools", "messages": [{"role": "user", "content": "How is the weather in Rome?"}],
        "tools": [WEATHER, CLOCK], "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False, "max_tokens": 60, "temperature": 0,
    }  # fmt: skip
    if streams:
        chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**fields, stream=True)]
        calls: Any = [call for choice in chunks for call in choice.delta.tool_calls or ()]
        reason = chunks[-1].finish_reason
    else:
        choice = client.chat.completions.create(**fields).choices[0]
        calls, reason = choice.message.tool_calls, choice.finish_reason
        assert choice.message.content is None
    (call,) = calls
    assert call.type == "function" and call.id and call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")
    assert reason == "tool_calls"


def test_a_conversation_with_a_tool(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "How is the weather in Rome?"}]
    fields: Any = {"model": "smol-tools", "tools": [WEATHER], "max_tokens": 60, "temperature": 0}
    first = client.chat.completions.create(messages=messages, tool_choice="required", **fields).choices[0].message
    assert first.tool_calls
    messages += [first, {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "sunny"}]
    second = client.chat.completions.create(messages=messages, tool_choice="none", **fields).choices[0].message
    assert second.content and not second.tool_calls


def test_thoughts(client: openai.OpenAI) -> None:
    fields: Any = {"model": "smol-thinks", "messages": USER, "max_tokens": 6, "temperature": 0}
    message = client.chat.completions.create(**fields).choices[0].message
    assert message.content == "" and getattr(message, "reasoning", "")
    with pytest.raises(openai.BadRequestError, match="does not support thinking"):
        client.chat.completions.create(**{**fields, "model": "smol"}, reasoning_effort="high")


# -- completions ----------------------------------------------------------------------------------------------------


def test_completions(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    token = tokenizer.encode(" Zebra", add_special=False)[0]
    fields: Any = {"model": "smol", "max_tokens": 3, "logit_bias": {str(token): 100}, "extra_body": {"raw": True}}
    prompt = "The capital of France is"
    answer = client.completions.create(prompt=prompt, echo=True, **fields)
    assert answer.object == "text_completion" and answer.id.startswith("cmpl-")
    assert answer.choices[0].text == prompt + 3 * tokenizer.decode([token])
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None and answer.usage.prompt_tokens == len(tokenizer.encode(prompt))
    streamed = client.completions.create(prompt=prompt, echo=True, stream=True, **fields)
    assert "".join(chunk.choices[0].text for chunk in streamed) == answer.choices[0].text


def test_many_prompts(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    token = tokenizer.encode(" Zebra", add_special=False)[0]
    bias = {str(token): 100}
    fields: Any = {"model": "smol", "max_tokens": 2, "logit_bias": bias, "echo": True, "extra_body": {"raw": True}}
    texts = ["The capital of France is", "One, two, three,"]
    wanted = [text + 2 * tokenizer.decode([token]) for text in texts]
    together = client.completions.create(prompt=texts, n=2, **fields)
    assert [c.text for c in together.choices] == [text for text in wanted for _ in range(2)]
    tokens = [tokenizer.encode(text) for text in texts]
    assert [c.text for c in client.completions.create(prompt=tokens, **fields).choices] == wanted
    assert client.completions.create(prompt=tokens[0], **fields).choices[0].text == wanted[0]
    streamed = ["", ""]
    for chunk in client.completions.create(prompt=texts, stream=True, **fields):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert streamed == wanted


def test_completion_logprobs(client: openai.OpenAI) -> None:
    fields: Any = {"model": "smol", "max_tokens": 4, "temperature": 0, "extra_body": {"raw": True}}
    answer = client.completions.create(prompt="The capital of France is", logprobs=2, **fields).choices[0]
    found = answer.logprobs
    assert found is not None and found.tokens and found.token_logprobs and found.top_logprobs and found.text_offset
    assert "".join(found.tokens) == answer.text
    assert all(len(top) == 2 and token in top for token, top in zip(found.tokens, found.top_logprobs, strict=True))
    assert [answer.text[at:].startswith(t) for at, t in zip(found.text_offset, found.tokens, strict=True)] == [True] * 4


# -- embeddings, models, scores -------------------------------------------------------------------------------------


def test_embeddings(client: openai.OpenAI) -> None:
    texts = ["why is the sky blue?", "a cat"]
    plain = client.embeddings.create(model="minilm", input=texts, encoding_format="float")
    packed = client.embeddings.create(model="minilm", input=texts)  # the client asks for base64 by itself
    rows = np.array([item.embedding for item in plain.data])
    assert rows.shape == (2, 384) and np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert np.allclose(rows, [item.embedding for item in packed.data], atol=1e-7)
    assert plain.usage.prompt_tokens == plain.usage.total_tokens > 4
    short = client.embeddings.create(model="minilm", input=texts[0], dimensions=16, encoding_format="float").data[0]
    assert len(short.embedding) == 16
    assert np.allclose(short.embedding, rows[0, :16] / np.linalg.norm(rows[0, :16]), atol=1e-5)


def test_embeddings_of_tokens(client: openai.OpenAI, minilm_path: Path, served: Served) -> None:
    with GGUFFile(minilm_path) as file:
        tokens = Tokenizer.from_metadata(file.metadata).encode("a cat")
    of_text = client.embeddings.create(model="minilm", input="a cat").data[0].embedding
    of_tokens = client.embeddings.create(model="minilm", input=tokens).data[0].embedding
    assert np.allclose(of_text, of_tokens, atol=1e-6)
    raw = httpx.post(
        f"{served.url}/v1/embeddings", json={"model": "minilm", "input": "a cat", "encoding_format": "base64"}
    )
    data = np.frombuffer(base64.b64decode(raw.json()["data"][0]["embedding"]), "<f4")
    assert np.allclose(data, of_text, atol=1e-7)


def test_models(client: openai.OpenAI) -> None:
    found = {model.id: model for model in client.models.list()}
    assert {"smol:latest", "smol-tools:latest", "minilm:latest"} <= set(found)
    assert found["smol:latest"].owned_by == "library" and found["smol:latest"].created > 1_600_000_000
    assert client.models.retrieve("smol").id == "smol"
    with pytest.raises(openai.NotFoundError, match="model 'none' not found"):
        client.models.retrieve("none")


def test_a_model_that_cannot_rerank_says_so(served: Served) -> None:
    body = {"model": "smol", "query": "q", "documents": ["a"]}
    found = httpx.post(f"{served.url}/v1/rerank", json=body)
    assert found.status_code == 400 and "error" in found.json()


# -- errors and ends ------------------------------------------------------------------------------------------------


def test_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="none", messages=USER)
    assert missing.value.type == "not_found_error"
    with pytest.raises(openai.BadRequestError) as empty:
        client.chat.completions.create(model="smol", messages=[])
    assert (empty.value.type, empty.value.param) == ("invalid_request_error", "messages")
    wrong: Any = "many"
    with pytest.raises(openai.BadRequestError) as typed:
        client.chat.completions.create(model="smol", messages=USER, n=wrong)
    assert typed.value.param == "n"
    with pytest.raises(openai.BadRequestError, match="does not support chat"):
        client.chat.completions.create(model="minilm", messages=USER)
    with pytest.raises(openai.BadRequestError):  # known only to the runner, before the first event
        bad: Any = {"response_format": {"type": "gbnf", "grammar": "root ::= ("}}
        client.chat.completions.create(model="smol", messages=USER, stream=True, extra_body=bad)


def test_nothing_and_nonsense(served: Served) -> None:
    for body in (b"", b"{", b"[]", b'{"model": 3}'):
        found = httpx.post(f"{served.url}/v1/chat/completions", content=body)
        assert found.status_code == 400 and found.json()["error"]["message"]
    assert httpx.get(f"{served.url}/v1/chat/completions").status_code == 405


@pytest.mark.parametrize("streams", [True, False])
def test_who_goes_away_is_not_waited_for(served: Served, streams: bool) -> None:
    """An answer without end is cancelled; the next request finds a free sequence at once."""
    body = {
        "model": "smol", "messages": USER, "stream": streams, "options": {"ignore_eos": True, "stop": []},
        "max_tokens": 4000,
    }  # fmt: skip

    async def run() -> int:
        async with httpx.AsyncClient(base_url=served.url, timeout=120) as client:
            asked = [asyncio.ensure_future(client.post("/v1/chat/completions", json=body)) for _ in range(6)]
            await asyncio.sleep(1)
            for one in asked:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            found = await client.post(
                "/v1/chat/completions", json={**body, "stream": False, "max_tokens": 2}, timeout=20
            )
            return found.status_code

    assert asyncio.run(run()) == 200


def test_a_runner_that_dies_ends_a_stream_with_an_error(served: Served) -> None:
    """The error is an event of its own, and the next request finds a new runner."""
    with served.openai() as client:
        fields: Any = {"model": "smol-thinks", "messages": USER, "extra_body": {"options": {"ignore_eos": True}}}
        stream = client.chat.completions.create(max_tokens=3000, stream=True, **fields)
        next(stream)
        for runner in served.runners():
            os.kill(runner, signal.SIGKILL)
        with pytest.raises(openai.APIError, match="runner"):
            list(stream)
        assert client.chat.completions.create(max_tokens=2, **fields).choices
