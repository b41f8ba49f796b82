"""Where a model goes, and what is lowered until it fits."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pyggml.engine import Engine, EngineConfig, Fit, fit
from pyggml.errors import OutOfMemoryError, ParameterError
from pyggml.gguf import GGUFFile, ModelMetadata
from pyggml.tensor import Device, DeviceType, DType, devices
from pyggml_server.protocol import Load, Measure, Measured
from pyggml_server.runner.drafting import Drafts, draft_bytes
from pyggml_server.runner.memory import check_memory

__all__ = ["Placed", "engine_config", "load", "measure"]

log = logging.getLogger("pyggml.runner")

GIB: Final = 2**30
_AUTOMATIC_CONTEXT: Final = ((47 * GIB, 262144), (23 * GIB, 32768), (0, 4096))
"""Context by the memory of all GPUs, as Ollama has it."""

LEAST_CONTEXT: Final = 4


@dataclass(frozen=True)
class Placed:
    """An open engine, and what it took.

    Attributes:
        engine: ready.
        devices: for :attr:`pyggml_server.protocol.Loaded.devices`.
        notes: what was lowered, for people.
        drafts: the draft model beside it.
    """

    engine: Engine
    devices: list[dict[str, Any]]
    notes: list[str]
    drafts: Drafts | None = None


def engine_config(request: Load | Measure) -> EngineConfig:
    """The engine's options: types by name, and the context settled.

    Raises:
        ParameterError: an option is out of its range. GGUFError: this is no model.
    """
    fields = dict(request.config)
    for name in ("type_k", "type_v"):
        if name in fields:
            fields[name] = DType[str(fields[name]).upper()]
    for name in ("snapshot_dir", "cache_dir"):
        if fields.get(name) is not None:
            fields[name] = Path(fields[name])
    fields["adapters"] = tuple(Path(path) for path in fields.get("adapters", ()))
    with GGUFFile(Path(request.path)) as file:
        trained = ModelMetadata(file).get_int("context_length", default=0)
    asked = int(fields.get("n_ctx") or 0) or _automatic_context()
    fields["n_ctx"] = max(LEAST_CONTEXT, min(asked, trained) if trained else asked)
    return EngineConfig(**fields)


def _gpus() -> list[Device]:
    return [device for device in devices() if device.type in (DeviceType.GPU, DeviceType.IGPU)]


def _automatic_context() -> int:
    total = sum(device.memory()[1] for device in _gpus())
    return next(n_ctx for least, n_ctx in _AUTOMATIC_CONTEXT if total >= least)


def _choose(request: Load | Measure, config: EngineConfig) -> tuple[EngineConfig, Fit | None]:
    """The options with their devices settled, and what they were found to take, where that was measured.

    A model that fits on one GPU goes there, on the one with most room; then fewer sequences are better than a second
    GPU, and a second GPU is better than layers on the CPU.
    """
    gpus = _gpus()
    if not request.automatic:
        return config, None
    if config.n_gpu_layers == 0 or not gpus:
        return replace(config, n_gpu_layers=None), None
    margin = config.memory_margin
    config = replace(config, memory_margin=margin + _draft_bytes(request, config))
    if request.main_gpu is not None:
        if not 0 <= request.main_gpu < len(gpus):
            raise ParameterError(f"main_gpu {request.main_gpu}: there are {len(gpus)} GPUs, counted from 0")
        gpus = [gpus[request.main_gpu]]
    groups: list[tuple[str, ...]] = [(device.name,) for device in sorted(gpus, key=lambda device: -device.memory()[0])]
    if len(gpus) > 1:
        everywhere = tuple(device.name for device in gpus)
        groups = [everywhere] if request.spread else [*groups, everywhere]
    layers = -1 if config.n_gpu_layers is None else config.n_gpu_layers
    best: tuple[EngineConfig, Fit] | None = None
    for group in groups:
        for n_parallel in _fewer(config.n_parallel, flexible="n_parallel" in request.flexible):
            tried = replace(config, devices=group, n_gpu_layers=layers, n_parallel=n_parallel)
            found = fit(request.path, tried)
            if found.fits and (layers >= 0 or _gpu_layers(found) >= found.n_layers):
                return _settled(tried, found, margin=margin), found
            if best is None or _gpu_layers(found) > _gpu_layers(best[1]):
                best = tried, found
    assert best is not None  # there is a GPU
    return _settled(*best, margin=margin), best[1]


def _draft_bytes(request: Load | Measure, config: EngineConfig) -> int:
    return draft_bytes(Path(request.draft), config, model=Path(request.path)) if request.draft is not None else 0


def _fewer(n: int, *, flexible: bool) -> Iterator[int]:
    """``n``, and while it may be lowered, halves of it down to 1."""
    yield n
    while flexible and n > 1:
        n //= 2
        yield n


def _gpu_layers(found: Fit) -> int:
    return found.measured.placement.n_gpu_layers


def _settled(config: EngineConfig, found: Fit, *, margin: int) -> EngineConfig:
    """The same with the number of layers that was found, so that loading does not search again."""
    return replace(config, n_gpu_layers=_gpu_layers(found), memory_margin=margin)


def measure(request: Measure) -> Measured:
    """What a model would take, with its draft model.

    Raises:
        as for :func:`pyggml.engine.fit`.
    """
    config, found = _choose(request, engine_config(request))
    if found is None:
        found = fit(request.path, config)
    described = describe(found)
    if request.draft is not None:  # on the first device that has layers
        place = next((each for each in described if each["layers"]), described[-1])
        place["needed"] += _draft_bytes(request, config)
    return Measured(request.id, all(each["needed"] <= each["free"] for each in described), described)


def load(request: Load, *, progress: Callable[[float], None]) -> Placed:
    """Open the engine; where there is no room, with less of what may be lowered.

    Raises:
        OutOfMemoryError: nothing more can be lowered. Others as for :class:`pyggml.engine.Engine`.
    """
    asked = engine_config(request)
    config, found = _choose(request, asked)
    first = config
    while True:
        try:
            more = _draft_bytes(request, config)
            check_memory(request.path, config, found, more=more)
            engine, drafts = _open(request, config, progress)
        except OutOfMemoryError as error:
            lowered = _lower(config, request.flexible)
            if lowered is None:
                raise
            config, found = lowered, None
            log.warning("%s; trying with n_parallel=%d, n_gpu_layers=%s", error, config.n_parallel, config.n_gpu_layers)
            continue
        notes = [f"n_parallel lowered to {config.n_parallel}"] if config.n_parallel < asked.n_parallel else []
        if (config.n_gpu_layers or 0) < (first.n_gpu_layers or 0):
            notes.append(f"n_gpu_layers lowered to {config.n_gpu_layers}")
        described = describe(found) if found is not None else _describe_loaded(engine)
        if drafts is not None:
            _add(described, _describe_loaded(drafts.engine))
        return Placed(engine, described, notes, drafts)


def _open(request: Load, config: EngineConfig, progress: Callable[[float], None]) -> tuple[Engine, Drafts | None]:
    engine = Engine(request.path, config, progress=progress)
    if request.draft is None:
        return engine, None
    try:
        return engine, Drafts(Path(request.draft), engine)
    except BaseException:
        engine.close()
        raise


def _add(described: list[dict[str, Any]], more: list[dict[str, Any]]) -> None:
    """Count what another engine takes on the same devices."""
    by_name = {each["name"]: each for each in described}
    for each in more:
        if (known := by_name.get(each["name"])) is not None:
            known["needed"] += each["needed"]
        else:
            described.append({**each, "layers": 0})


def _lower(config: EngineConfig, flexible: Sequence[str]) -> EngineConfig | None:
    """The same with less of the first option that can still be less."""
    if "n_parallel" in flexible and config.n_parallel > 1:
        return replace(config, n_parallel=config.n_parallel // 2)
    layers = config.n_gpu_layers or 0
    if "n_gpu_layers" in flexible and layers > 0:
        return replace(config, n_gpu_layers=layers - max(1, layers // 4))
    return None


def describe(found: Fit) -> list[dict[str, Any]]:
    """A measurement as the maps of the protocol."""
    return [
        {
            "name": each.device.name,
            "type": "cpu" if each.device.is_cpu else "gpu",
            "layers": each.layers,
            "needed": each.need.total,
            "free": each.free,
            "total": each.total,
        }
        for each in found.devices
    ]


def _describe_loaded(engine: Engine) -> list[dict[str, Any]]:
    """What an engine takes whose devices were given: each has its weights and graphs, and layers their cache."""
    compute: dict[str, int] = {}
    for backend, size in zip(engine.executor.backends, engine.executor.sizes, strict=True):
        name = backend.device.name
        if all(each.device.name != name for each in engine.backends):  # it helps the CPU, in its memory
            name = engine.backends[-1].device.name
        compute[name] = compute.get(name, 0) + size
    described = []
    for backend in engine.backends:
        device = backend.device
        needed = compute.get(device.name, 0)
        needed += sum(n for _, where, n in engine.weights.sizes() if where.name == device.name)
        if len(engine.backends) == 1:
            needed += engine.cache.n_bytes
        free, total = device.memory()
        described.append({
            "name": device.name, "type": "cpu" if device.is_cpu else "gpu", "layers": 0, "needed": needed, "free": free,
            "total": total,
        })  # fmt: skip
    return described
