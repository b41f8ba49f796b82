"""What is left to others on GPUs, and what is lowered until a model fits: with sizes that only these tests know."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyggml.engine import EngineConfig
from pyggml.errors import OutOfMemoryError, ParameterError
from pyggml_server.config import Config
from pyggml_server.protocol import Load
from pyggml_server.runner import placing
from pyggml_server.scheduler import LoadOptions, ModelSpec
from pyggml_server.scheduler.loading import load_fields

GIB = 2**30
LAYER = GIB // 10
N_LAYERS = 31
"""The output counts as one."""


def gpu(name: str, free: float) -> Any:
    return SimpleNamespace(name=name, is_cpu=False, memory=lambda: (int(free * GIB), 24 * GIB))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make a machine with such GPUs. A model takes 0.1 GiB for each layer, and as much for each sequence."""

    def make(**free: float) -> None:
        gpus = {name: gpu(name, n) for name, n in free.items()}

        def fit(path: str, config: EngineConfig) -> Any:
            room = sum(max(0, gpus[name].memory()[0] - config.memory_margin) for name in config.devices)
            n_fit = max(0, min(N_LAYERS, (room - config.n_parallel * LAYER) // LAYER))
            asked = N_LAYERS if config.n_gpu_layers in (None, -1) else config.n_gpu_layers
            assert asked is not None
            layers = n_fit if config.n_gpu_layers in (None, -1) else asked
            placement = SimpleNamespace(n_gpu_layers=layers)
            return SimpleNamespace(
                fits=asked <= n_fit, n_layers=N_LAYERS, devices=[], measured=SimpleNamespace(placement=placement)
            )

        monkeypatch.setattr(placing, "_gpus", lambda: list(gpus.values()))
        monkeypatch.setattr(placing, "fit", fit)

    return make


def fields(variables: Mapping[str, str], **options: Any) -> dict[str, Any]:
    spec = ModelSpec("m", "0", Path("m.gguf"), options=LoadOptions(num_ctx=512, **options))
    return load_fields(spec, Config.from_environment({"PYGGML_MEMORY_MARGIN": "0", **variables}))


def choose(variables: Mapping[str, str], **options: Any) -> EngineConfig:
    request = Load(1, **fields(variables, **options))
    request.config["n_ctx"] = 512
    config = EngineConfig(**{k: v for k, v in request.config.items() if not k.startswith(("type_", "cache_dir"))})
    return placing._choose(request, config)[0]


def test_settings_and_options_reach_the_choice(machine: Callable[..., None]) -> None:
    machine(A=5, B=9)
    assert (choose({}).devices, choose({}).n_gpu_layers, choose({}).n_parallel) == (("B",), N_LAYERS, 4)
    assert choose({"OLLAMA_SCHED_SPREAD": "1"}).devices == ("A", "B")
    with pytest.raises(ParameterError, match="main_gpu 2: there are 2 GPUs"):
        choose({}, main_gpu=2)
    assert choose({}, num_gpu=0).n_gpu_layers is None  # the CPU alone


@pytest.mark.parametrize("variable", ["OLLAMA_GPU_OVERHEAD", "PYGGML_MEMORY_MARGIN"])
def test_what_is_left_to_others_counts(machine: Callable[..., None], variable: str) -> None:
    machine(A=3.6)
    assert choose({variable: "0"}).n_parallel == 4
    assert choose({variable: "300M"}).n_parallel == 2  # fewer sequences before layers go to the CPU
    assert choose({variable: "1G"}).n_gpu_layers == 25
    asked = choose({variable: "300M", "OLLAMA_NUM_PARALLEL": "4"})
    assert (asked.n_parallel, asked.n_gpu_layers) == (4, 29)


def test_overhead_and_margin_add_up(machine: Callable[..., None]) -> None:
    machine(A=3.6)
    both = {"OLLAMA_GPU_OVERHEAD": "512M", "PYGGML_MEMORY_MARGIN": "512M"}
    assert choose(both).n_gpu_layers == choose({"OLLAMA_GPU_OVERHEAD": "1G"}).n_gpu_layers


def test_memory_that_runs_out_in_spite_of_the_measurement(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """First fewer sequences, then fewer layers on the GPU, a quarter less each time; at last the error."""
    machine(A=9)
    tried: list[tuple[int, int]] = []
    most, most_parallel = 10, 4

    def refuse(request: Load, config: EngineConfig, progress: Any) -> Any:
        assert config.n_gpu_layers is not None
        tried.append((config.n_parallel, config.n_gpu_layers))
        if config.n_gpu_layers > most or config.n_parallel > most_parallel:
            raise OutOfMemoryError("no room")
        return SimpleNamespace(), None

    monkeypatch.setattr(placing, "_open", refuse)
    monkeypatch.setattr(placing, "check_memory", lambda *args, **options: None)
    monkeypatch.setattr(placing, "_describe_loaded", lambda engine: [])
    monkeypatch.setattr(placing, "engine_config", lambda request: EngineConfig(n_ctx=512, n_parallel=4))
    request = Load(1, **fields({}))
    placed = placing.load(request, progress=lambda _: None)
    assert tried == [(4, 31), (2, 31), (1, 31), (1, 24), (1, 18), (1, 14), (1, 11), (1, 9)]
    assert placed.notes == ["n_parallel lowered to 1", "n_gpu_layers lowered to 9"]
    most, most_parallel = N_LAYERS, 2
    assert placing.load(request, progress=lambda _: None).notes == ["n_parallel lowered to 2"]
    most = -1
    with pytest.raises(OutOfMemoryError):
        placing.load(request, progress=lambda _: None)
    assert tried[-1] == (1, 0)
