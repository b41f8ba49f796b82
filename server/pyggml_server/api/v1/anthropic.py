"""``POST /v1/messages`` and ``POST /v1/messages/count_tokens``: Anthropic's Messages API."""

from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

import msgspec
from starlette.requests import Request

from pyggml_server.api.generation import Generator
from pyggml_server.api.tasks import ChatTask
from pyggml_server.api.tasks import Final as FinalItem
from pyggml_server.api.v1.answers import merge, runs
from pyggml_server.api.v1.anthropic_events import MessageEvents
from pyggml_server.api.v1.anthropic_input import read_thinking, read_turns
from pyggml_server.api.v1.anthropic_types import CountRequest, MessagesRequest
from pyggml_server.api.v1.connection import Frames
from pyggml_server.api.v1.decode import decode, encode, settings_of
from pyggml_server.api.v1.formats import format_of
from pyggml_server.api.v1.ids import new_id
from pyggml_server.api.v1.options import options_of
from pyggml_server.api.v1.refuse import refuse
from pyggml_server.api.v1.tools import Toolbox

__all__ = ["CountTokens", "Messages", "messages_task"]

_DECODER: Final = msgspec.json.Decoder(MessagesRequest)
_COUNT_DECODER: Final = msgspec.json.Decoder(CountRequest)


class Messages:
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
        given = {"temperature": asked.temperature, "top_p": asked.top_p}
        limit = ("max_tokens", asked.max_tokens)
        options = options_of(asked, given, max_tokens=limit, stop=asked.stop_sequences)
        task = await _task(self._generator, asked, options)
        if asked.stream:
            return self._stream(asked, task)
        async with self._generator.prepare(task) as prepared:
            events = MessageEvents(new_id("msg_"), asked.model, n_prompt=len(prepared.prompt.tokens))
            async with aclosing(merge(runs([prepared], n=1, seed=None))) as items:
                async for _, item in items:
                    for _ in events.finish(item) if isinstance(item, FinalItem) else events.write(item):
                        pass  # the blocks that the events tell of are wanted, not the events
        return encode(events.reply)

    async def _stream(self, asked: MessagesRequest, task: ChatTask) -> Frames:
        async with self._generator.prepare(task) as prepared:
            events, begun = MessageEvents(new_id("msg_"), asked.model, n_prompt=len(prepared.prompt.tokens)), False
            async with aclosing(merge(runs([prepared], n=1, seed=None))) as items:
                async for _, item in items:
                    if not begun:
                        begun = True
                        yield events.begin()
                    for frame in events.finish(item) if isinstance(item, FinalItem) else events.write(item):
                        yield frame


class CountTokens:
    """The handler that counts the tokens of a prompt, without loading the model's weights.

    Args:
        generator: Writes prompts.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator: Final = generator

    async def __call__(self, request: Request) -> bytes:
        """Answer.

        Raises:
            ServerError: of every kind.
        """
        asked = await decode(request, _COUNT_DECODER)
        # truncated, it would count what fits and not what is there; refusing is not counting either
        task = await _task(self._generator, asked, options_of(asked, {}))
        return encode({"input_tokens": await self._generator.count(task)})


async def _task(generator: Generator, asked: CountRequest, options: dict[str, Any]) -> ChatTask:
    task = messages_task(asked, options)
    # a client of this API asks for thoughts by habit; unlike in the other APIs that is no error
    if task.settings.think and not (await generator.catalog.open(asked.model)).can("thinking"):
        return replace(task, settings=replace(task.settings, think=None))
    return task


def messages_task(asked: CountRequest, options: dict[str, Any]) -> ChatTask:
    """What a request asks of the generator.

    Raises:
        FieldError: a field is wrong, or cannot act here.
    """
    refuse(asked, "container", "context_management", "mcp_servers")
    tools = Toolbox.from_anthropic(asked.tools, asked.tool_choice)
    form = asked.output_config.format if asked.output_config else None
    settings = settings_of(
        asked, options, think=read_thinking(asked), format=format_of(form, param="output_config.format")
    )
    return ChatTask(
        model=asked.model,
        messages=read_turns(asked.system, asked.messages),
        tools=tools.tools,
        tool_choice=tools.choice,
        parallel_tool_calls=tools.parallel,
        settings=settings,
    )
