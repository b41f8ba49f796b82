"""``POST /v1/chat/completions``."""

from contextlib import aclosing
from typing import Final

import msgspec
from starlette.requests import Request

from pyggml_server.api.generation import Generator, Prepared
from pyggml_server.api.tasks import ChatTask
from pyggml_server.api.tasks import Final as FinalItem
from pyggml_server.api.v1.answers import Collected, Counts, collect, merge, runs
from pyggml_server.api.v1.chat_stream import DONE, ChatChunks, out_calls
from pyggml_server.api.v1.chat_types import Answer, ChatRequest, Choice, Completion, LogProbList
from pyggml_server.api.v1.connection import Frames
from pyggml_server.api.v1.conversation import chat_messages
from pyggml_server.api.v1.decode import decode, encode, settings_of
from pyggml_server.api.v1.errors import FieldError
from pyggml_server.api.v1.formats import format_of
from pyggml_server.api.v1.ids import Stamp
from pyggml_server.api.v1.logprobs import chat_logprobs
from pyggml_server.api.v1.options import MAX_CHOICES, MAX_LOGPROBS, check_range, logit_bias_of, options_of, think_of
from pyggml_server.api.v1.refuse import refuse
from pyggml_server.api.v1.tools import Toolbox

__all__ = ["ChatCompletions", "chat_task"]

_DECODER: Final = msgspec.json.Decoder(ChatRequest)
_REFUSED: Final = (
    "audio", "function_call", "functions", "modalities", "prediction", "store", "web_search_options",
)  # fmt: skip


class ChatCompletions:
    """The handler.

    Args:
        generator: Answers tasks.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator: Final = generator

    async def __call__(self, request: Request) -> bytes | Frames:
        """Answer, whole or as a stream.

        Raises:
            ServerError: of every kind, before the first event.
        """
        asked = await decode(request, _DECODER)
        task = chat_task(asked)
        stamp = Stamp.now("chatcmpl-", asked.model)
        if asked.stream:
            return self._stream(asked, task, stamp)
        async with self._generator.prepare(task) as prepared:
            found = await collect(runs([prepared], n=asked.n or 1, seed=asked.seed))
            return encode(_completion(asked, prepared, stamp, found))

    async def _stream(self, asked: ChatRequest, task: ChatTask, stamp: Stamp) -> Frames:
        counts, n = Counts(), asked.n or 1
        usage = asked.stream_options is not None and asked.stream_options.include_usage
        writers = [ChatChunks(stamp, index=index, usage=usage) for index in range(n)]
        async with (
            self._generator.prepare(task) as prepared,
            aclosing(merge(runs([prepared], n=n, seed=asked.seed))) as items,
        ):
            async for index, item in items:
                if isinstance(item, FinalItem):
                    counts.add(item)
                    yield writers[index].finish(item.reason)
                    continue
                found = chat_logprobs(prepared.model.tokenizer, item.logprobs) if asked.logprobs else None
                for frame in writers[index].write(item, found):
                    yield frame
        if usage:
            yield ChatChunks.usage(stamp, counts.usage)
        yield DONE


def chat_task(asked: ChatRequest) -> ChatTask:
    """What a request asks of the generator.

    Raises:
        FieldError: a field is wrong, or cannot act here.
    """
    refuse(asked, *_REFUSED)
    check_range("n", asked.n, 1, MAX_CHOICES)
    check_range("top_logprobs", asked.top_logprobs, 0, MAX_LOGPROBS)
    if asked.top_logprobs is not None and not asked.logprobs:
        raise FieldError("top_logprobs needs logprobs to be true", param="top_logprobs")
    tools = Toolbox.from_openai(asked.tools, asked.tool_choice, asked.parallel_tool_calls)
    limit = ("max_tokens", asked.max_tokens)
    if asked.max_completion_tokens is not None:
        limit = ("max_completion_tokens", asked.max_completion_tokens)
    given = {
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "frequency_penalty": asked.frequency_penalty,
        "presence_penalty": asked.presence_penalty,
        "seed": asked.seed,
        "logit_bias": logit_bias_of(asked.logit_bias),
    }
    effort = asked.reasoning_effort or (asked.reasoning.effort if asked.reasoning else None)
    settings = settings_of(
        asked,
        options_of(asked, given, max_tokens=limit, stop=asked.stop),
        format=format_of(asked.response_format, param="response_format"),
        think=think_of(effort, param="reasoning_effort"),
        logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
    )
    return ChatTask(
        model=asked.model,
        messages=chat_messages(asked.messages),
        tools=tools.tools,
        tool_choice=tools.choice,
        parallel_tool_calls=tools.parallel,
        settings=settings,
    )


def _completion(asked: ChatRequest, prepared: Prepared, stamp: Stamp, found: list[Collected]) -> Completion:
    counts = Counts()
    for one in found:
        counts.add(one.final)
    choices = [_choice(asked, prepared, index, one) for index, one in enumerate(found)]
    return Completion(stamp.id, stamp.created, stamp.model, choices, counts.usage)


def _choice(asked: ChatRequest, prepared: Prepared, index: int, one: Collected) -> Choice:
    # a message that only calls has no content, not an empty one
    message = Answer(one.content or (None if one.tool_calls else ""))
    if one.thinking:
        message.reasoning = one.thinking
    if one.tool_calls:
        message.tool_calls = out_calls(one.tool_calls)
    choice = Choice(index, message, one.finish_reason)
    if asked.logprobs:
        choice.logprobs = LogProbList(chat_logprobs(prepared.model.tokenizer, one.logprobs))
    return choice
