"""Where a model goes, and what is lowered until it fits."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pyggml.engine import Engine, EngineConfig, Fit, fit
from pyggml.errors import OutOfMemoryError
from pyggml.gguf import GGUFFile, ModelMetadata
from pyggml.tensor import Device, DeviceType, DType, devices
from pyggml_server.protocol import Load, Measure

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
    """

    engine: Engine
    devices: list[dict[str, Any]]
    notes: list[str]


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


def _choices(path: str, config: EngineConfig, request: Load | Measure) -> Iterator[tuple[EngineConfig, Fit | None]]:
    """Options to try in turn, with what they were found to take."""
    if not request.automatic or config.n_gpu_layers == 0 or not _gpus():
        yield config, None
        return
    everywhere = replace(
        config, devices=("gpus",), n_gpu_layers=-1 if config.n_gpu_layers is None else config.n_gpu_layers
    )
    if not request.spread:
        for device in sorted(_gpus(), key=lambda device: -device.memory()[0]):
            alone = replace(everywhere, devices=(device.name,))
            found = fit(path, alone)
            if found.fits and found.measured.placement.n_gpu_layers >= found.n_layers:
                yield _settled(alone, found), found
                return
    found = fit(path, everywhere)
    yield _settled(everywhere, found), found


def _settled(config: EngineConfig, found: Fit) -> EngineConfig:
    """The same with the number of layers that was found, so that loading does not search again."""
    return replace(config, n_gpu_layers=found.measured.placement.n_gpu_layers)


def measure(request: Measure) -> Fit:
    """What a model would take.

    Raises:
        as for :func:`pyggml.engine.fit`.
    """
    config, found = next(_choices(request.path, engine_config(request), request))
    return found if found is not None else fit(request.path, config)


def load(request: Load, *, progress: Callable[[float], None]) -> Placed:
    """Open the engine; where there is no room, with less of what may be lowered.

    Raises:
        OutOfMemoryError: nothing more can be lowered. Others as for :class:`pyggml.engine.Engine`.
    """
    config = engine_config(request)
    notes: list[str] = []
    while True:
        chosen, found = next(_choices(request.path, config, request))
        try:
            engine = Engine(request.path, chosen, progress=progress)
        except OutOfMemoryError as error:
            lowered = _lower(chosen, request.flexible)
            if lowered is None:
                raise
            name, config = lowered
            notes.append(f"{name} lowered to {getattr(config, name)}")
            log.warning("%s: %s; trying again", error, notes[-1])
            continue
        return Placed(engine, describe(found) if found is not None else _describe_loaded(engine), notes)


def _lower(config: EngineConfig, flexible: Sequence[str]) -> tuple[str, EngineConfig] | None:
    """The first option that can still be less, and the options with it."""
    if "n_parallel" in flexible and config.n_parallel > 1:
        return "n_parallel", replace(config, n_parallel=config.n_parallel // 2)
    layers = config.n_gpu_layers or 0
    if "n_gpu_layers" in flexible and layers > 0:
        return "n_gpu_layers", replace(config, n_gpu_layers=layers - max(1, layers // 4))
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
    described = []
    for backend, compute in zip(engine.backends, engine.executor.sizes, strict=True):
        device = backend.device
        needed = compute + sum(n for _, where, n in engine.weights.sizes() if where.name == device.name)
        if len(engine.backends) == 1:
            needed += engine.cache.n_bytes
        free, total = device.memory()
        described.append({
            "name": device.name, "type": "cpu" if device.is_cpu else "gpu", "layers": 0, "needed": needed, "free": free,
            "total": total,
        })  # fmt: skip
    return described
