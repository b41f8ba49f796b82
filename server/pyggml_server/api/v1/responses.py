"""``POST /v1/responses``: OpenAI's Responses API, without its memory."""

from contextlib import aclosing
from typing import Final

import msgspec
from starlette.requests import Request

from pyggml_server.api.generation import Generator, Prepared
from pyggml_server.api.tasks import ChatTask, Chunk
from pyggml_server.api.tasks import Final as FinalItem
from pyggml_server.api.v1.answers import merge, runs
from pyggml_server.api.v1.common_types import LogProbItem
from pyggml_server.api.v1.connection import Frames, describe
from pyggml_server.api.v1.decode import decode, encode, settings_of
from pyggml_server.api.v1.errors import FieldError
from pyggml_server.api.v1.formats import format_of
from pyggml_server.api.v1.ids import Stamp
from pyggml_server.api.v1.logprobs import chat_logprobs
from pyggml_server.api.v1.options import MAX_LOGPROBS, check_range, options_of, think_of
from pyggml_server.api.v1.refuse import refuse
from pyggml_server.api.v1.responses_events import ResponseEvents
from pyggml_server.api.v1.responses_input import read_items
from pyggml_server.api.v1.responses_items import new_response
from pyggml_server.api.v1.responses_types import ResponsesRequest
from pyggml_server.api.v1.tools import Toolbox

__all__ = ["Responses", "response_task"]

_DECODER: Final = msgspec.json.Decoder(ResponsesRequest)
_REFUSED: Final = (
    "background", "context_management", "conversation", "max_tool_calls", "previous_response_id", "prompt", "store",
)  # fmt: skip
_LOGPROBS: Final = "message.output_text.logprobs"
_ENCRYPTED: Final = "reasoning.encrypted_content"


class Responses:
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
        task = response_task(asked)
        response = new_response(asked, Stamp.now("resp_", asked.model))
        events = ResponseEvents(response, encrypted=_ENCRYPTED in (asked.include or ()))
        if asked.stream:
            return self._stream(task, events)
        async with (
            self._generator.prepare(task) as prepared,
            aclosing(merge(runs([prepared], n=1, seed=None))) as items,
        ):
            async for _, item in items:
                for _ in _events_of(events, prepared, item):
                    pass  # the items that the events tell of are wanted, not the events
        return encode(events.response)

    async def _stream(self, task: ChatTask, events: ResponseEvents) -> Frames:
        begun = False
        try:
            async with (
                self._generator.prepare(task) as prepared,
                aclosing(merge(runs([prepared], n=1, seed=None))) as items,
            ):
                async for _, item in items:
                    if not begun:
                        begun = True
                        for frame in events.begin():
                            yield frame
                    for frame in _events_of(events, prepared, item):
                        yield frame
        except Exception as error:
            if not begun:
                raise
            yield events.fail(describe(error)[1])


def response_task(asked: ResponsesRequest) -> ChatTask:
    """What a request asks of the generator.

    Raises:
        FieldError: a field is wrong, or cannot act here.
    """
    refuse(asked, *_REFUSED)
    check_range("top_logprobs", asked.top_logprobs, 0, MAX_LOGPROBS)
    for name in asked.include or ():
        if name not in (_LOGPROBS, _ENCRYPTED):
            raise FieldError(f"include: {name[:60]!r} is not supported", param="include")
    if asked.truncation not in (None, "auto", "disabled"):
        raise FieldError("truncation must be auto or disabled", param="truncation")
    if asked.truncation == "disabled":
        asked.truncate = False
    wanted = bool(asked.top_logprobs) or _LOGPROBS in (asked.include or ())
    tools = Toolbox.from_openai(asked.tools, asked.tool_choice, asked.parallel_tool_calls)
    given = {"temperature": asked.temperature, "top_p": asked.top_p, "seed": asked.seed}
    settings = settings_of(
        asked,
        options_of(asked, given, max_tokens=("max_output_tokens", asked.max_output_tokens)),
        format=format_of(asked.text.format if asked.text else None, param="text.format"),
        think=think_of(asked.reasoning.effort if asked.reasoning else None, param="reasoning.effort"),
        logprobs=(asked.top_logprobs or 0) if wanted else None,
    )
    return ChatTask(
        model=asked.model,
        messages=read_items(asked.instructions, asked.input),
        tools=tools.tools,
        tool_choice=tools.choice,
        parallel_tool_calls=tools.parallel,
        settings=settings,
    )


def _events_of(events: ResponseEvents, prepared: Prepared, item: Chunk | FinalItem) -> list[bytes]:
    if isinstance(item, FinalItem):
        return list(events.finish(item))
    logprobs: list[LogProbItem] | None = None
    if item.logprobs:
        logprobs = chat_logprobs(prepared.model.tokenizer, item.logprobs)
    return list(events.write(item, logprobs))
