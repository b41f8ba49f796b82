"""What is decided before a model is loaded: the context by memory, the GPUs, how many sequences."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from pyggml.engine import EngineConfig
from pyggml_server.protocol import Measure
from pyggml_server.runner import placing

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """A device with memory of its own."""

    name: str
    free: int
    total: int

    def memory(self) -> tuple[int, int]:
        return self.free, self.total


def gpus(monkeypatch: pytest.MonkeyPatch, *gib: int) -> None:
    found = [Gpu(f"GPU{i}", size * GIB, size * GIB) for i, size in enumerate(gib)]
    monkeypatch.setattr(placing, "_gpus", lambda: found)


@pytest.mark.parametrize(
    ("gib", "n_ctx"), [((), 4096), ((22,), 4096), ((23,), 32768), ((24, 22), 32768), ((24, 23), 262144)]
)
def test_the_context_follows_the_memory(monkeypatch: pytest.MonkeyPatch, gib: tuple[int, ...], n_ctx: int) -> None:
    gpus(monkeypatch, *gib)
    assert placing._automatic_context() == n_ctx


@pytest.mark.parametrize(
    ("spread", "main_gpu", "room", "devices", "n_parallel"),
    [
        (False, None, 100, ("GPU1",), 4),  # the one with most room
        (True, None, 100, ("GPU0", "GPU1"), 4),
        (False, 0, 100, ("GPU0",), 4),
        (False, None, 12, ("GPU1",), 2),  # fewer sequences before a second GPU
        (False, None, 5, ("GPU0", "GPU1"), 2),  # a second GPU before the CPU
    ],
)
def test_which_gpus(
    monkeypatch: pytest.MonkeyPatch,
    spread: bool,
    main_gpu: int | None,
    room: int,
    devices: tuple[str, ...],
    n_parallel: int,
) -> None:
    gpus(monkeypatch, 8, 16)

    def fit(path: str, config: EngineConfig) -> Any:
        fits = 5 * config.n_parallel <= room * len(config.devices) and (room > 5 or len(config.devices) > 1)
        placement = SimpleNamespace(n_gpu_layers=10 if fits else 3 * len(config.devices))
        return SimpleNamespace(fits=fits, n_layers=10, measured=SimpleNamespace(placement=placement))

    monkeypatch.setattr(placing, "fit", fit)
    request = Measure(
        1, "m", {}, automatic=True, spread=spread, main_gpu=main_gpu, flexible=["n_parallel", "n_gpu_layers"]
    )
    config, _ = placing._choose(request, EngineConfig(n_parallel=4))
    assert (config.devices, config.n_parallel, config.n_gpu_layers) == (devices, n_parallel, 10)
