"""Models on disk: list, show, copy, delete, create, pull, push, blobs."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final

import msgspec

from pyggml_server.api.answers import Details, Models, ShowAnswer, TagModel
from pyggml_server.api.catalog import Facts
from pyggml_server.api.endpoint import Call, Document, Reply
from pyggml_server.api.showing import show_model
from pyggml_server.errors import BadRequestError, InvalidNameError, ModelNotFoundError, StoreError
from pyggml_server.names import Name
from pyggml_server.store import ModelDetails, ModelEntry
from pyggml_server.templates import GoTemplate

__all__ = ["copy", "create", "delete", "details_of", "find_blob", "pull", "push", "put_blob", "show", "tags"]

_log: Final = logging.getLogger(__name__)


async def tags(call: Call) -> Reply:
    """The models in the store, the newest first."""
    state = call.state
    entries = await state.catalog.run(state.store.list)
    return Document(Models(models=[_line(entry, await state.catalog.facts(entry.name)) for entry in entries]))


def details_of(details: ModelDetails, facts: Facts | None = None) -> Details:
    """``details`` as clients see them."""
    return Details(
        parent_model="",
        format=details.format,
        family=details.family,
        families=list(details.families) or None,
        parameter_size=details.parameter_size,
        quantization_level=details.quantization_level,
        context_length=facts.n_ctx_train if facts else 0,
        embedding_length=facts.n_embd if facts else 0,
    )


def time_of(moment: datetime) -> str:
    """A time as Go writes it."""
    return moment.isoformat().replace("+00:00", "Z")


def _line(entry: ModelEntry, facts: Facts | None) -> TagModel:
    return TagModel(
        name=entry.name.display,
        model=entry.name.display,
        modified_at=time_of(entry.modified),
        size=entry.size,
        digest=entry.digest,
        details=details_of(entry.details, facts),
        capabilities=list(facts.capabilities) if facts else [],
    )


async def show(call: Call) -> Reply:
    """Everything about one model."""
    body = call.body
    model = await call.state.catalog.open(body.model or body.name or "")
    catalog = call.state.catalog
    facts = await catalog.facts(model.stored.name)
    answer: ShowAnswer = await catalog.run(show_model, model, details_of(model.stored.details, facts), body)
    return Document(answer)


async def copy(call: Call) -> Reply:
    """Give a model a second name."""
    source = _parse(call.body.source, f'source "{call.body.source}" is invalid')
    destination = _parse(call.body.destination, f'destination "{call.body.destination}" is invalid')
    try:
        await call.state.catalog.run(call.state.store.copy, source, destination)
    except ModelNotFoundError:
        raise ModelNotFoundError(f'model "{call.body.source}" not found') from None
    return Document()


async def delete(call: Call) -> Reply:
    """Remove a model; it is unloaded first."""
    text = call.body.model or call.body.name or ""
    name = _parse(text, f'name "{text}" is invalid')
    state = call.state
    try:
        stored = await state.catalog.run(state.store.get, name)
        await state.scheduler.unload(stored.digest)
    except ModelNotFoundError:
        raise ModelNotFoundError(f"model '{text}' not found") from None
    except StoreError as error:
        _log.warning("a damaged model is removed: %s", error)
    await state.catalog.run(state.store.remove, name)
    return Document()


async def pull(call: Call) -> Reply:
    """Bring a model from elsewhere."""
    text = _named(call)
    return await _progress(call, call.state.transfers.pull(text, insecure=bool(call.body.insecure)))


async def push(call: Call) -> Reply:
    """Send a model to a registry."""
    text = _named(call)
    try:
        stored = await call.state.catalog.run(call.state.store.get, Name.parse(text))
    except ModelNotFoundError:
        raise ModelNotFoundError(f"model '{text}' not found") from None
    target = stored.name.display
    return await _progress(call, call.state.transfers.push(target, insecure=bool(call.body.insecure)))


async def create(call: Call) -> Reply:
    """Make a model of files, of another model, or of both."""
    body = call.body
    text = body.model or body.name or ""
    _parse(text, "invalid model name")
    if body.template:
        await call.state.catalog.run(GoTemplate, body.template)  # said now, and not by the first chat
    request: Mapping[str, Any] = {
        key: value for key, value in msgspec.to_builtins(body).items() if value is not None and key != "stream"
    }
    return await _progress(call, call.state.transfers.create(request))


async def find_blob(call: Call) -> Reply:
    """Whether a blob is in the store."""
    digest = _digest(call)
    found = await call.state.catalog.run(call.state.store.blobs.find, digest)
    return Document(status=404 if found is None else 200)


async def put_blob(call: Call) -> Reply:
    """Put a blob into the store; its content must be what the digest says."""
    new = await call.state.transfers.add_blob(_digest(call), call.request.stream())
    return Document(status=201 if new else 200)


def _digest(call: Call) -> str:
    digest: str = call.request.path_params["digest"].lower().replace("-", ":", 1)
    kind, _, digits = digest.partition(":")
    if kind != "sha256" or len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
        raise BadRequestError("invalid digest format")
    return digest


def _named(call: Call) -> str:
    text: str = call.body.model or call.body.name or ""
    _parse(text, "invalid model name")
    return text


def _parse(text: str, message: str) -> Name:
    try:
        return Name.parse(text)
    except InvalidNameError:
        raise BadRequestError(message) from None


async def _progress(call: Call, events: AsyncIterator[dict[str, Any]]) -> Reply:
    """Lines of progress; not streamed: the last one."""
    if call.body.stream is not False:
        return _lines(events)
    last: dict[str, Any] = {"status": "success"}
    async for event in events:
        last = event
    return Document(last)


async def _lines(events: AsyncIterator[dict[str, Any]]) -> AsyncGenerator[dict[str, Any], None]:
    if isinstance(events, AsyncGenerator):
        async with aclosing(events):
            async for event in events:
                yield event
    else:
        async for event in events:
            yield event
