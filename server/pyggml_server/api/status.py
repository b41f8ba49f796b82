"""How the server is: banner, version, health, models in memory, counters; and what it leaves to others."""

import asyncio
from datetime import UTC, datetime
from typing import Final

import pyggml
from pyggml_server.api.answers import RunningModel, RunningModels
from pyggml_server.api.endpoint import Call, Document, Reply
from pyggml_server.api.management import details_of
from pyggml_server.errors import CloudError
from pyggml_server.scheduler import LoadedModel
from pyggml_server.store import ModelDetails

__all__ = ["API_VERSION", "banner", "cloud_only", "health", "metrics", "ps", "status", "version"]

API_VERSION: Final = "0.30.0"
"""The version of Ollama whose API this is: clients look at it to see what they may use."""

_TEXT: Final = b"text/plain; charset=utf-8"
_FOREVER: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


async def banner(call: Call) -> Reply:
    """A line of text that clients look for."""
    return Document(b"Ollama is running", content_type=_TEXT)


async def version(call: Call) -> Reply:
    """The version of the API, and of this server."""
    return Document({"version": API_VERSION, "pyggml": pyggml.__version__})


async def health(call: Call) -> Reply:
    """That the server answers; for balancers."""
    return Document({"status": "ok"})


async def status(call: Call) -> Reply:
    """Whether requests go elsewhere (never), and what goes on."""
    loaded = call.state.scheduler.loaded()
    answer = {
        "cloud": {"disabled": True, "source": "none"},
        "version": pyggml.__version__,
        "queued": call.state.scheduler.n_waiting,
        "models": [
            {"name": m.name, "state": m.state, "active": m.n_active, "queued": m.queued + m.waiting} for m in loaded
        ],
    }
    return Document(answer)


async def ps(call: Call) -> Reply:
    """The models in memory; the one that stays longest first."""
    config = call.state.config
    types = ",".join(dict.fromkeys((config.cache_type_k, config.cache_type_v)))  # one word where both are the same
    loaded = call.state.scheduler.loaded()
    return Document(RunningModels(models=[_line(model, cache_types=types) for model in loaded]))


def _line(model: LoadedModel, *, cache_types: str) -> RunningModel:
    expires = model.expires_at or _FOREVER
    details = model.details if isinstance(model.details, ModelDetails) else ModelDetails()
    return RunningModel(
        name=model.name,
        model=model.name,
        size=model.size,
        digest=model.digest,
        details=details_of(details),
        expires_at=expires.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        size_vram=model.size_vram,
        context_length=model.n_ctx,
        state=model.state,
        parallel=model.n_parallel,
        active=model.n_active,
        queued=model.queued + model.waiting,
        flash_attention=model.flash_attn,
        kv_cache_type=cache_types,
        notes=list(model.notes),
    )


async def metrics(call: Call) -> Reply:
    """Counters in Prometheus' form."""
    scheduler = call.state.scheduler
    runners = await scheduler.metrics()
    page = await asyncio.to_thread(call.state.metrics.render, scheduler.loaded(), runners)
    return Document(page, content_type=b"text/plain; version=0.0.4; charset=utf-8")


async def cloud_only(call: Call) -> Reply:
    """Routes of Ollama that need an account at ollama.com."""
    raise CloudError(f"{call.request.url.path} needs an account at ollama.com; this server runs models of its own only")
