"""What is measured before loading is what loading takes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.rpc import rpc_server
from helpers.tiny import TinyConfig, TinyModel, build
from pyggml.engine import Engine, EngineConfig, fit
from pyggml.engine.loaded import LoadedModel
from pyggml.gguf import GGMLType
from pyggml.tensor import Device


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with rpc_server() as endpoint:
        yield f"rpc://{endpoint}"


@pytest.fixture(scope="module")
def deep(folder: Path) -> TinyModel:
    """Eight layers of 220 KiB, of which two in three have a window."""
    return build(folder / "deep.gguf", TinyConfig("gemma3", n_layer=8, weights=GGMLType.Q8_0, tied=False))


def options(**more: Any) -> EngineConfig:
    base: dict[str, Any] = {"n_ctx": 512, "n_batch": 64, "n_threads": 1, "memory_margin": 0}
    return EngineConfig(**(base | more))


CASES: dict[str, dict[str, Any]] = {
    "CPU": {},
    "CPU, copied, without flash attention": {"use_mmap": False, "flash_attn": False},
    "four layers": {"n_gpu_layers": 4},
    "all": {"n_gpu_layers": 99},
    "cache on the host": {"kv_offload": False},
    "feed forward on the CPU": {"tensor_overrides": [("ffn", "CPU")]},
    "more sequences": {"n_parallel": 4, "n_gpu_layers": 4},
}


@pytest.mark.parametrize("case", CASES)
def test_measured_is_what_is_taken(server: str, deep: TinyModel, case: str) -> None:
    config = options(**({} if case.startswith("CPU") else {"devices": [server]}), **CASES[case])
    result = fit(deep.path, config)
    with LoadedModel(deep.path, config) as loaded:
        needs = [device.need for device in result.devices]
        assert [need.compute for need in needs] == loaded.executor.sizes
        assert sum(need.cache for need in needs) == loaded.cache.n_bytes
        assert sum(need.weights for need in needs) == pytest.approx(sum(loaded.weights.summary().values()), rel=0.01)
        assert [d.device.name for d in result.devices] == [d.name for d in loaded.placement.devices]
        assert result.measured.flash_attn == loaded.flash_attn and result.measured.n_ctx == loaded.n_ctx
    assert result.fits and min(need.compute for need in needs) > 0


def limit(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """Let every device but the CPU have so many bytes."""
    memory = Device.memory
    monkeypatch.setattr(Device, "memory", lambda self: memory(self) if self.is_cpu else (free, 2 * free))


def test_as_many_layers_as_fit(server: str, deep: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = fit(deep.path, options(devices=[server])).devices[0].need.total
    found = []
    for percent in (100, 99, 75, 50, 30, 5):
        limit(monkeypatch, everything * percent // 100)
        result = fit(deep.path, options(devices=[server]))
        n = result.measured.placement.n_gpu_layers
        assert result.fits and result.most_layers is None
        if 0 < n < 9:
            more = fit(deep.path, options(devices=[server], n_gpu_layers=n + 1))
            assert not more.fits and more.most_layers == n, "one more would not fit"
        found.append(n)
        with Engine(deep.path, options(devices=[server])) as engine:
            assert len(engine.backends) == (2 if n else 1)
    assert found[0] == 9 and found[-1] == 0 and found == sorted(found, reverse=True) and len(set(found)) >= 4
    limit(monkeypatch, everything)
    tight = fit(deep.path, options(devices=[server], memory_margin=everything // 4))
    assert 0 < tight.measured.placement.n_gpu_layers < 9, "the margin stays free"


def test_rules_leave_room(server: str, deep: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    full = fit(deep.path, options(devices=[server])).devices[0].need
    limit(monkeypatch, full.total * 2 // 3)
    plain = fit(deep.path, options(devices=[server]))
    without = fit(deep.path, options(devices=[server], tensor_overrides=[("ffn", "CPU")]))
    assert without.measured.placement.n_gpu_layers > plain.measured.placement.n_gpu_layers
    assert without.fits and plain.fits


def test_two_devices_are_filled_evenly(server: str, deep: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with rpc_server() as second:
        both = [server, f"rpc://{second}"]
        result = fit(deep.path, options(devices=both))
        counts = [result.measured.placement.layers_on(i) for i in range(3)]
        assert sum(counts) == 9 and counts[2] == 0 and abs(counts[0] - counts[1]) <= 2
        largest = max(device.need.total for device in result.devices[:-1])
        limit(monkeypatch, largest * 4 // 5)
        less = fit(deep.path, options(devices=both))
        assert less.fits and 0 < less.measured.placement.n_gpu_layers < 9
        limit(monkeypatch, largest)
        one = fit(deep.path, options(devices=both, tensor_split=(1, 0)))
        assert one.fits and one.measured.placement.layers_on(0) == one.measured.placement.n_gpu_layers < 9
