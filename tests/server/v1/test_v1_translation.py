"""Requests of OpenAI's and Anthropic's APIs as tasks: no model, no server."""

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyggml_server.api.tasks import ChatTask
from pyggml_server.api.v1.anthropic import messages_task
from pyggml_server.api.v1.anthropic_types import MessagesRequest
from pyggml_server.api.v1.chat import chat_task
from pyggml_server.api.v1.chat_types import ChatRequest
from pyggml_server.api.v1.completion_types import CompletionRequest
from pyggml_server.api.v1.completions import completion_tasks
from pyggml_server.api.v1.embeddings import texts_of
from pyggml_server.api.v1.errors import FieldError
from pyggml_server.api.v1.options import options_of
from pyggml_server.api.v1.responses import response_task
from pyggml_server.api.v1.responses_types import ResponsesRequest

NOTHING = {"type": "object", "properties": {}}
USER = [{"role": "user", "content": "hi"}]
WEATHER = {"name": "weather", "description": "d", "parameters": {"type": "object", "properties": {"city": {}}}}
TOOLS = [{"type": "function", "function": {**WEATHER, "strict": True}}, {"type": "function", "function": {"name": "b"}}]


def chat(**fields: Any) -> ChatTask:
    return chat_task(msgspec.convert({"model": "m", "messages": USER, **fields}, ChatRequest))


def messages(**fields: Any) -> ChatTask:
    asked = msgspec.convert({"model": "m", "max_tokens": 5, "messages": USER, **fields}, MessagesRequest)
    return messages_task(asked, options_of(asked, {}))


def respond(**fields: Any) -> ChatTask:
    return response_task(msgspec.convert({"model": "m", "input": "hi", **fields}, ResponsesRequest))


def complete(**fields: Any) -> list[Any]:
    return completion_tasks(msgspec.convert({"model": "m", **fields}, CompletionRequest))


# -- options --------------------------------------------------------------------------------------------------------


def test_openai_defaults_replace_the_models_own() -> None:
    assert chat().settings.options == {"temperature": 1.0, "top_p": 1.0}


def test_fields_win_over_options_and_options_over_defaults() -> None:
    options = chat(
        options={"temperature": 0.1, "top_k": 7, "num_ctx": 64, "mirostat": 1},
        top_k=9,
        num_ctx=128,
        top_p=0.3,
        seed=4,
        frequency_penalty=0.5,
        presence_penalty=0.25,
        max_tokens=3,
        max_completion_tokens=6,
        stop=["a", "", "b"],
    ).settings.options
    assert options == {
        "temperature": 0.1, "top_k": 9, "num_ctx": 128, "mirostat": 1, "top_p": 0.3, "seed": 4,
        "frequency_penalty": 0.5, "presence_penalty": 0.25, "num_predict": 6, "stop": ["a", "b"],
    }  # fmt: skip


def test_logit_bias_forbids_at_minus_hundred() -> None:
    assert chat(logit_bias={"5": 2.5, "7": -100}).settings.options["logit_bias"] == {"5": 2.5, "7": False}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}, "strict": "yes"}}},
            "response_format.json_schema.strict",
        ),
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"store": True}, "store"),
        ({"functions": [{}]}, "functions"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"tools": [{"type": "custom"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "c"}}}, "tool_choice"),
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"text": "a"}]}]}, "messages[0].content[0]"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(FieldError) as caught:
        chat(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("effort", "think"), [("none", False), ("minimal", "low"), ("high", "high"), ("xhigh", "max"), (None, None)]
)
def test_effort_becomes_think(effort: str | None, think: bool | str | None) -> None:
    assert chat(reasoning_effort=effort).settings.think == think
    assert chat(reasoning={"effort": effort}).settings.think == think
    assert respond(reasoning={"effort": effort}).settings.think == think


def test_formats() -> None:
    schema = {"type": "object"}
    assert chat(response_format={"type": "text"}).settings.format is None
    assert chat(response_format={"type": "json_object"}).settings.format == "json"
    nested = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    wanted = {"type": "json_schema", "schema": schema}
    assert chat(response_format=nested).settings.format == {**wanted, "strict": True}
    flat = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
    assert respond(text=flat).settings.format == {**wanted, "strict": False}
    assert messages(output_config=flat).settings.format == {**wanted, "strict": False}
    regex = {"type": "regex", "pattern": "a+"}
    assert chat(response_format=regex).settings.format == regex


def test_own_fields() -> None:
    settings = chat(truncate=False, shift=False, priority=3, keep_alive=0).settings
    assert (settings.truncate, settings.shift, settings.priority) == (False, False, 3)
    assert settings.keep_alive is not None
    assert respond(truncation="disabled").settings.truncate is False
    assert respond(truncation="auto").settings.truncate is True


# -- tools ----------------------------------------------------------------------------------------------------------


def test_tools_are_trimmed_to_what_templates_know() -> None:
    assert chat(tools=TOOLS).tools == (
        {"type": "function", "function": WEATHER},
        {"type": "function", "function": {"name": "b", "description": "", "parameters": NOTHING}},
    )  # fmt: skip
    assert respond(tools=[{"type": "function", **WEATHER}]).tools == chat(tools=TOOLS[:1]).tools
    own = {"name": "weather", "description": "d", "input_schema": WEATHER["parameters"], "cache_control": {}}
    assert messages(tools=[own]).tools == chat(tools=TOOLS[:1]).tools


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, "auto"),
        ("auto", "auto"),
        ("required", "required"),
        ({"type": "function", "function": {"name": "b"}}, {"name": "b"}),
        ({"type": "function", "name": "b"}, {"name": "b"}),
    ],
)
def test_tool_choice(choice: Any, expected: Any) -> None:
    assert chat(tools=TOOLS, tool_choice=choice).tool_choice == expected


def test_no_tool_is_shown_where_none_may_be_called() -> None:
    assert chat(tools=TOOLS, tool_choice="none").tools == ()
    assert messages(tools=[{"name": "a", "input_schema": {}}], tool_choice={"type": "none"}).tools == ()


def test_allowed_tools() -> None:
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "b"}}]}
    task = chat(tools=TOOLS, tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert [tool["function"]["name"] for tool in task.tools] == ["b"]
    assert task.tool_choice == "required"


def test_anthropic_choice() -> None:
    tools = [{"name": "a", "input_schema": {"type": "object"}}]
    task = messages(tools=tools, tool_choice={"type": "any", "disable_parallel_tool_use": True})
    assert (task.tool_choice, task.parallel_tool_calls) == ("required", False)
    assert messages(tools=tools, tool_choice={"type": "tool", "name": "a"}).tool_choice == {"name": "a"}
    with pytest.raises(FieldError, match="would run here"):
        messages(tools=[{"type": "web_search_20250305", "name": "web_search"}])


def test_parallel_calls() -> None:
    assert chat(tools=TOOLS).parallel_tool_calls
    assert not chat(tools=TOOLS, parallel_tool_calls=False).parallel_tool_calls


# -- messages -------------------------------------------------------------------------------------------------------


def test_a_conversation_with_calls() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"b": 1, "a": [2]}'}}
    found = chat(
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "wait", "tool_calls": [call], "reasoning": "hm"},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ]
    ).messages
    assert [(m.role, m.content) for m in found] == [
        ("system", "be brief"), ("user", "a\n\nb"), ("assistant", "wait"), ("tool", "sunny"),
    ]  # fmt: skip
    assert found[2].thinking == "hm"
    assert [(c.id, c.name, list(c.arguments.items())) for c in found[2].tool_calls] == [
        ("c1", "weather", [("b", 1), ("a", [2])])
    ]
    assert (found[3].tool_name, found[3].tool_call_id) == ("weather", "c1")


def test_the_same_conversation_in_three_forms() -> None:
    """One turn of a tool, as each API writes it, is the same to the model."""
    one = chat(
        messages=[
            {"role": "system", "content": "s"},
            {"role": "user", "content": "q"},
            {
                "role": "assistant",
                "content": "t",
                "reasoning": "r",
                "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": '{"x": 1}'}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": "out"},
            {"role": "user", "content": "more"},
        ]
    ).messages
    two = respond(
        instructions="s",
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "q"}]},
            {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "r"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "t"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"x": 1}'},
            {"type": "function_call_output", "call_id": "c", "output": "out"},
            {"role": "user", "content": "more"},
        ],
    ).messages
    three = messages(
        system=[{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": "q"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "r", "signature": ""},
                    {"type": "text", "text": "t"},
                    {"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "out"}]},
                    {"type": "text", "text": "more"},
                ],
            },
        ],
    ).messages
    assert one == two == three


def test_arguments_that_are_no_object() -> None:
    for arguments in ("[1]", "nonsense", "1"):
        call = {"id": "c1", "function": {"name": "f", "arguments": arguments}}
        with pytest.raises(FieldError, match="invalid tool call arguments"):
            chat(messages=[{"role": "assistant", "content": None, "tool_calls": [call]}])


def test_images_come_as_data_only() -> None:
    data = base64.b64encode(b"\x89PNG").decode()
    for part in (
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "image_url", "image_url": f"data:;base64,{data}"},
    ):
        found = chat(messages=[{"role": "user", "content": [part]}]).messages
        assert list(found[0].images) == [b"\x89PNG"]
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
    assert list(messages(messages=[{"role": "user", "content": [block]}]).messages[0].images) == [b"\x89PNG"]
    for url in ("http://x/y.png", "data:image/png;base64,%%%", "data:text/html;base64,aaaa"):
        with pytest.raises(FieldError, match="invalid image input"):
            chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": url}]}])


def test_thinking_is_off_in_messages_unless_asked_for() -> None:
    assert messages().settings.think is False
    assert messages(thinking={"type": "enabled", "budget_tokens": 2000}).settings.think is True
    assert messages(thinking={"type": "adaptive"}, output_config={"effort": "high"}).settings.think == "high"
    assert messages(thinking={"type": "disabled"}).settings.think is False


@pytest.mark.parametrize(
    "fields",
    [
        {"previous_response_id": "r"}, {"store": True}, {"background": True}, {"conversation": "c"},
        {"prompt": {"id": "p"}}, {"max_tool_calls": 3}, {"tools": [{"type": "web_search"}]},
        {"include": ["file_search_call.results"]}, {"truncation": "half"}, {"input": []},
        {"input": [{"type": "item_reference", "id": "x"}]}, {"input": [{"type": "function_call", "call_id": "c"}]},
    ],
)  # fmt: skip
def test_responses_refuse_what_cannot_act(fields: dict[str, Any]) -> None:
    with pytest.raises(FieldError) as caught:
        respond(**fields)
    assert caught.value.param.startswith(next(iter(fields)))


# -- completions and embeddings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]]), ("", [""])],
)
def test_prompts(prompt: Any, expected: list[Any]) -> None:
    assert [task.prompt for task in complete(prompt=prompt, suffix="s")] == expected


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a"] * 17, "n": 128}, "prompt"),
        ({"best_of": 2}, "best_of"),
        ({"echo": True, "logprobs": 1}, "logprobs"),
        ({"logprobs": 21}, "logprobs"),
    ],
)
def test_completions_refuse(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(FieldError) as caught:
        complete(**{"prompt": "a", **fields})
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("given_input", "expected"), [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2]], [[1], [2]])]
)
def test_embedding_inputs(given_input: Any, expected: list[Any]) -> None:
    assert texts_of(given_input) == expected


@pytest.mark.parametrize("given_input", ["", [], [""], ["a", 1], [[1], "a"], [[]]])
def test_embedding_inputs_that_are_none(given_input: Any) -> None:
    with pytest.raises(FieldError, match="invalid input"):
        texts_of(given_input)


# -- anything -------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 10**6)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "image", "input_text", "tool_result", "tool_use", "thinking"])},
    optional={
        "text": JSON,
        "image_url": JSON,
        "source": JSON,
        "content": JSON,
        "input": JSON,
        "id": JSON,
        "name": JSON,
    },
)
CONTENT = st.text(max_size=5) | st.lists(PART, max_size=3)
MESSAGE = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "tool", "system"]), "content": CONTENT})
FIELDS = {"tools": st.lists(JSON, max_size=2), "tool_choice": JSON, "response_format": JSON, "text": JSON, "stop": JSON}
BODY = st.fixed_dictionaries(
    {"model": st.just("m"), "max_tokens": st.just(3), "messages": st.lists(MESSAGE, max_size=3)},
    optional={**FIELDS, "input": st.lists(MESSAGE | JSON, max_size=3), "instructions": JSON, "system": CONTENT},
)


@settings(max_examples=60, deadline=None)
@given(body=BODY)
def test_whatever_comes_is_a_task_or_a_clear_refusal(body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    for kind, make in ((ChatRequest, chat_task), (ResponsesRequest, response_task)):
        try:
            task = make(msgspec.json.decode(data, type=kind))  # type: ignore[arg-type]
        except (FieldError, msgspec.ValidationError):
            continue
        assert isinstance(task, ChatTask)
    try:
        asked = msgspec.json.decode(data, type=MessagesRequest)
        messages_task(asked, options_of(asked, {}))
    except (FieldError, msgspec.ValidationError):
        pass
