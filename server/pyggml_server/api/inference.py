"""``/api/chat`` and ``/api/generate``."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import msgspec

from pyggml_server.api.answering import ChatWriter, GenerateWriter, Writer, progress_of
from pyggml_server.api.endpoint import Call, Document, Reply
from pyggml_server.api.generation import Prepared
from pyggml_server.api.loading import prepare_with_progress
from pyggml_server.api.options import merge_options
from pyggml_server.api.planning import MAX_LOGPROBS
from pyggml_server.api.schema import ChatRequest, GenerateRequest, InMessage
from pyggml_server.api.tasks import ChatTask, Chunk, Final, PromptTask, Settings, Task
from pyggml_server.config import KeepAlive
from pyggml_server.errors import BadRequestError, CapabilityError
from pyggml_server.scheduler import LoadProgress, ModelKey
from pyggml_server.templates import Message, ToolCall

__all__ = ["chat", "generate", "messages_of", "parse_keep_alive"]

Body = ChatRequest | GenerateRequest
MakeWriter = Callable[[Prepared], Writer]


async def chat(call: Call) -> Reply:
    """Answer a conversation; without messages, load or unload the model."""
    body: ChatRequest = call.body
    model = body.model or ""
    if not body.messages:
        return await _load(call, body, ChatWriter(model), verb="chat")
    task = ChatTask(
        model=model,
        messages=messages_of(body.messages),
        tools=body.tools or (),
        tool_choice=body.tool_choice,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        settings=_settings(body),
    )
    if body.debug_render_only:
        return await _render_only(call, task, ChatWriter(model))
    return await _answer(call, body, task, lambda prepared: ChatWriter(model, prepared.model.tokenizer))


async def generate(call: Call) -> Reply:
    """Continue a prompt; without one, load or unload the model."""
    body: GenerateRequest = call.body
    model = body.model or ""
    task = PromptTask(
        model=model,
        prompt=body.prompt or "",
        suffix=body.suffix or "",
        system=body.system or None,
        template=body.template or None,
        context=body.context or (),
        images=len(body.images or ()),
        raw=bool(body.raw),
        settings=_settings(body),
    )
    if task.raw and (task.template or task.system or task.context):
        raise BadRequestError("raw mode does not support template, system, or context")
    if not body.prompt:
        return await _load(call, body, GenerateWriter(model), verb="generate")
    if body.debug_render_only:
        return await _render_only(call, task, GenerateWriter(model))

    def make(prepared: Prepared) -> Writer:
        prompt = None if task.raw else prepared.prompt.tokens
        return GenerateWriter(model, prepared.model.tokenizer, prompt=prompt)

    return await _answer(call, body, task, make)


def messages_of(messages: list[InMessage]) -> list[Message]:
    """Messages of a request as templates take them."""
    return [
        Message(
            role=message.role.lower(),
            content=message.content or "",
            thinking=message.thinking or "",
            images=tuple(message.images or ()),
            tool_calls=tuple(
                ToolCall(
                    id=made.id or "",
                    index=made.function.index if made.function.index is not None else index,
                    name=made.function.name,
                    arguments=made.function.arguments or {},
                )
                for index, made in enumerate(message.tool_calls or ())
            ),
            tool_name=message.tool_name or "",
            tool_call_id=message.tool_call_id or "",
        )
        for message in messages
    ]


def parse_keep_alive(value: int | float | str | None) -> KeepAlive | None:
    """The field ``keep_alive``; None where the server's own holds.

    Raises:
        BadRequestError: it is no length of time.
    """
    return None if value is None or value == "" else KeepAlive.parse(value)


def _settings(body: Body) -> Settings:
    top = body.top_logprobs or 0
    if not 0 <= top <= MAX_LOGPROBS:
        raise BadRequestError(f"top_logprobs must be between 0 and {MAX_LOGPROBS}")
    return Settings(
        options=body.options or {},
        format=body.format,
        think=None if body.think == "" else body.think,
        logprobs=top if body.logprobs else None,
        keep_alive=parse_keep_alive(body.keep_alive),
        truncate=body.truncate is not False,
        shift=body.shift is not False,
        priority=body.priority or 0,
    )


async def _answer(call: Call, body: Body, task: Task, make: MakeWriter) -> Reply:
    if body.stream is not False:
        return _stream(call, task, make, progress=bool(body.load_progress))
    async with call.state.generator.prepare(task) as prepared:
        whole = Chunk()
        async with aclosing(prepared.run()) as items:
            async for item in items:
                if isinstance(item, Final):
                    return Document(make(prepared).last(whole, item))
                whole.content += item.content
                whole.thinking += item.thinking
                whole.tool_calls += item.tool_calls
                whole.tokens += item.tokens
                whole.logprobs += item.logprobs
    raise AssertionError("the generator ends with how it ended")  # pragma: no cover


async def _stream(call: Call, task: Task, make: MakeWriter, *, progress: bool) -> AsyncGenerator[msgspec.Struct, None]:
    generator = call.state.generator
    async with AsyncExitStack() as stack:
        if progress:
            blank = ChatWriter(task.model) if isinstance(task, ChatTask) else GenerateWriter(task.model)
            events = await stack.enter_async_context(aclosing(prepare_with_progress(generator, task, stack)))
            async for event in events:
                if isinstance(event, LoadProgress):
                    yield blank.empty(load_progress=progress_of(event))
                else:
                    prepared = event
        else:
            prepared = await stack.enter_async_context(generator.prepare(task))
        writer = make(prepared)
        items = await stack.enter_async_context(aclosing(prepared.run()))
        async for item in items:
            yield writer.last(Chunk(), item) if isinstance(item, Final) else writer.part(item)


async def _render_only(call: Call, task: Task, writer: Writer) -> Document:
    _, prompt = await call.state.generator.render(task)
    debug: dict[str, Any] = {"rendered_template": prompt.text}
    if prompt.n_images:
        debug["image_count"] = prompt.n_images
    return Document(writer.empty(debug_info=debug))


async def _load(call: Call, body: Body, writer: Writer, *, verb: str) -> Document:
    """A request without text: the model is loaded, or with ``keep_alive`` 0 unloaded."""
    state = call.state
    keep_alive = parse_keep_alive(body.keep_alive)
    if keep_alive is not None and keep_alive.seconds == 0:
        stored = await state.catalog.find(body.model or "")
        await state.scheduler.unload(ModelKey(stored.path, stored.adapters, stored.projectors))
        return Document(writer.empty("unload"))
    model = await state.catalog.open(body.model or "")
    if not model.can("completion"):
        raise CapabilityError(f'"{body.model}" does not support {verb}')
    options = merge_options(model.stored.params, body.options or {}, draft=model.stored.draft)
    lease = state.scheduler.lease(model.spec(options.load), keep_alive=keep_alive, priority=body.priority or 0)
    async with lease as runner:
        return Document(writer.empty("load", load_duration=runner.load_duration_ns))
