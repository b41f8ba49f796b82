"""Which device gets what: counting layers, rules, the answers of models that are spread over devices."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.rpc import rpc_server
from helpers.tiny import TinyConfig, TinyModel, build, prompt
from pyggml.engine import Engine, EngineConfig
from pyggml.engine.fit import assign_layers
from pyggml.engine.placement import choose_devices, layer_of, place, split_layers
from pyggml.errors import BackendError, OutOfMemoryError, ParameterError
from pyggml.gguf import GGUFFile
from pyggml.tensor import Device, DeviceType
from pyggml.tokenizer import Tokenizer
from pyggml.weights import Use

IDS = prompt(30)


@pytest.fixture(scope="module")
def servers() -> Iterator[list[str]]:
    """Two RPC servers, as names of devices."""
    with rpc_server() as first, rpc_server() as second:
        yield [f"rpc://{first}", f"rpc://{second}"]


def gpus(n: int) -> list[Device]:
    """Devices that exist by name only."""
    return [Device(None, f"GPU{i}", "", DeviceType.GPU) for i in range(n)]


def placed(n_layer: int = 4, n_devices: int = 2, **options: Any) -> Any:
    names = [device.name for device in gpus(n_devices)]
    return place(EngineConfig(devices=names, **options), gpus(n_devices), n_layer=n_layer)


# -- names and numbers ------------------------------------------------------------------------------------------


def test_layers_by_name() -> None:
    assert layer_of("blk.17.attn_q.weight") == 17
    assert [layer_of(name) for name in ("output.weight", "blk.weight", "token_embd.weight", "v.blk.3.x")] == [None] * 4


@pytest.mark.parametrize(
    ("n", "proportions", "counts"),
    [
        (10, (1, 1), [5, 5]),
        (31, (1, 2), [10, 21]),
        (3, (3, 1, 0), [2, 1, 0]),
        (1, (1, 1), [0, 1]),
        (0, (1, 1), [0, 0]),
        (7, (0.3, 0.3, 0.4), [2, 2, 3]),
        (4, (), []),
    ],
)
def test_proportions(n: int, proportions: Sequence[float], counts: list[int]) -> None:
    assert split_layers(n, proportions) == counts


def test_the_last_layers_go_first_and_the_output_counts() -> None:
    for n, layers, output in (
        (0, [2, 2, 2, 2], 2),
        (1, [2, 2, 2, 2], 1),
        (2, [2, 2, 2, 0], 1),
        (4, [2, 0, 0, 1], 1),
        (5, [0, 0, 1, 1], 1),
        (99, [0, 0, 1, 1], 1),
        (-1, [0, 0, 1, 1], 1),
    ):
        p = placed(n_gpu_layers=n)
        assert (list(p.layers), p.output, p.inputs) == (layers, output, 2), n
        assert p.n_gpu_layers == min(n % 100, 5)
        assert p.layers_on(1) == [*layers, output].count(1)


def test_where_weights_go() -> None:
    p = placed(n_gpu_layers=3, tensor_overrides=[(r"blk\.3\.ffn_", "CPU"), (r"ffn_down", "gpu1")])
    for name, use, device in (
        ("blk.0.attn_q.weight", Use.MUL_MAT, 2),
        ("blk.2.attn_q.weight", Use.MUL_MAT, 0),
        ("blk.3.attn_norm.weight", Use.ELEMENT, 0),
        ("blk.3.ffn_down.weight", Use.MUL_MAT, 2),
        ("blk.0.ffn_down.weight", Use.MUL_MAT, 1),
        ("output.weight", Use.MUL_MAT, 1),
        ("output_norm.weight", Use.ELEMENT, 1),
        ("token_embd.weight", Use.GET_ROWS, 2),
        ("token_embd.weight", Use.MUL_MAT, 1),
        ("rope_freqs.weight", Use.ELEMENT, 1),
    ):
        assert p.index_of(name, use) == device, name
    assert [d.name for d in p.devices_for("blk.2.attn_q.weight", Use.MUL_MAT)] == ["GPU0", "CPU"]
    assert [d.name for d in p.devices_for("blk.0.attn_q.weight", Use.MUL_MAT)] == ["CPU"]
    assert [p.cache_device(layer) for layer in range(4)] == [2, 2, 0, 0]
    host = placed(n_gpu_layers=3, kv_offload=False)
    assert [host.cache_device(layer) for layer in range(4)] == [2] * 4


def test_experts_on_the_cpu() -> None:
    experts = [
        f"blk.{i}.ffn_{kind}_{group}exps.weight" for i in range(4) for kind in ("up", "gate_up") for group in ("", "ch")
    ]
    others = ["blk.1.ffn_up.weight", "blk.1.ffn_gate_inp.weight", "blk.1.attn_q.weight", "blk.11.ffn_up_shexp.weight"]
    every = placed(n_layer=12, cpu_moe=True)
    assert all(every.index_of(name, Use.MUL_MAT) == 2 for name in experts)
    assert all(every.index_of(name, Use.MUL_MAT) != 2 for name in others)
    some = placed(n_layer=12, n_cpu_moe=2)
    assert [some.index_of(f"blk.{i}.ffn_up_exps.weight", Use.MUL_MAT) == 2 for i in (0, 1, 2, 10, 11)] == [
        True,
        True,
        False,
        False,
        False,
    ]
    first = placed(cpu_moe=True, tensor_overrides=[("ffn_up_exps", "GPU0")])
    assert first.index_of("blk.3.ffn_up_exps.weight", Use.MUL_MAT) == 0, "rules that are given come first"


def test_unused_devices_are_left_out() -> None:
    p = placed(n_gpu_layers=2, tensor_split=(0, 1), tensor_overrides=[("ffn_up", "CPU")]).only_used()
    assert [d.name for d in p.devices] == ["GPU1", "CPU"]
    assert (p.layers, p.output, p.inputs, p.rules[0][1]) == ((1, 1, 1, 0), 0, 1, 1)
    assert [d.name for d in placed(n_gpu_layers=0).only_used().devices] == ["CPU"]


@pytest.mark.parametrize(
    ("items", "budgets", "split", "counts"),
    [
        ([10, 10, 10, 10, 30], [100], (), [5]),
        ([10, 10, 10, 10, 30], [69], (), [4]),
        ([10, 10, 10, 10, 30], [29], (), [0]),
        ([10, 10, 10, 10], [100, 100], (), [2, 2]),
        ([10, 10, 10, 10], [300, 100], (), [3, 1]),
        ([10, 10, 10, 10], [9, 100], (), [0, 4]),
        ([10, 10, 10, 10, 10], [20, 25], (), [2, 2]),
        ([10] * 8, [50, 25], (1, 1), [2, 2]),
        ([10] * 8, [50, 20], (3, 1), [5, 2]),
        ([10] * 8, [50, 0], (1, 0), [5, 0]),
        ([10], [-5], (), [0]),
    ],
)
def test_as_many_as_fit(items: list[int], budgets: list[int], split: tuple[float, ...], counts: list[int]) -> None:
    assert assign_layers(items, budgets, split=split) == counts


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=6),
    st.lists(st.integers(-5, 80), min_size=1, max_size=3),
)
def test_no_assignment_places_more(items: list[int], budgets: list[int]) -> None:
    def possible(part: list[int], room: list[int]) -> bool:
        """Whether some way of cutting ``part`` fits."""
        if not part or not room:
            return not part
        firsts = range(len(part) + 1)
        return any((not n or sum(part[:n]) <= room[0]) and possible(part[n:], room[1:]) for n in firsts)

    counts = assign_layers(items, budgets)
    n = sum(counts)
    begin = len(items) - n
    for count, budget in zip(counts, budgets, strict=True):
        assert not count or sum(items[begin : begin + count]) <= budget
        begin += count
    assert not any(possible(items[len(items) - more :], budgets) for more in range(n + 1, len(items) + 1))


# -- options ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_gpu_layers": -2}, "n_gpu_layers must be -1"),
        ({"n_parallel": 0}, "n_parallel"),
        ({"n_cpu_moe": -1}, "n_cpu_moe .* cpu_moe"),
        ({"memory_margin": -1}, "memory_margin"),
        ({"tensor_split": (0, 0)}, "tensor_split"),
        ({"tensor_split": (1, -1)}, "tensor_split"),
        ({"tensor_split": (1, float("nan"))}, "tensor_split"),
        ({"tensor_overrides": [("ffn_(", "CPU")]}, "no regular expression"),
        ({"devices": "CUDA0"}, "sequence of names"),
        ({"devices": ["CUDA0"], "device": "CUDA1"}, "not both"),
    ],
)
def test_nonsense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        EngineConfig(**options)


def test_options_that_do_not_fit_the_devices(servers: list[str], llama: TinyModel) -> None:
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"tensor_split": (1, 1)}, "2 proportions for 1 devices"),
        ({"tensor_overrides": [("ffn", "CUDA7")]}, "'CUDA7', which is not among the devices .*RPC"),
        ({"devices": [servers[0], servers[0]]}, "named twice"),
        ({"devices": ["rpc://nowhere"]}, "host:port"),
    )
    for options, message in cases:
        with pytest.raises(ParameterError, match=message):
            base: dict[str, Any] = {"devices": servers[:1], "n_ctx": 64}
            Engine(llama.path, EngineConfig(**(base | options)))
    with pytest.raises(BackendError, match="no device 'TPU7'"):
        Engine(llama.path, EngineConfig(devices=["TPU7"]))
    with pytest.raises(BackendError, match="no RPC server"):
        Engine(llama.path, EngineConfig(devices=["rpc://127.0.0.1:1"]))


def test_without_a_gpu_all_layers_are_on_the_cpu(llama: TinyModel, caplog: pytest.LogCaptureFixture) -> None:
    if any(d.type in (DeviceType.GPU, DeviceType.IGPU) for d in choose_devices(EngineConfig(n_gpu_layers=99))):
        pytest.skip("this machine has a GPU")
    with Engine(llama.path, EngineConfig(n_ctx=64, n_threads=1, n_gpu_layers=99)) as engine:
        assert not engine.executor.scheduled
    assert "all layers are on the CPU" in caplog.text


# -- answers ----------------------------------------------------------------------------------------------------


def logits(path: Path, **options: Any) -> tuple[np.ndarray, Engine]:
    config: dict[str, Any] = {"n_ctx": 64, "n_batch": 16, "n_threads": 1, "repack": False, "memory_margin": 0}
    with Engine(path, EngineConfig(**(config | options))) as engine:
        return engine.logits(IDS, outputs="all"), engine


PLACEMENTS: dict[str, dict[str, Any]] = {
    "one layer": {"n_gpu_layers": 2},
    "the output alone": {"n_gpu_layers": 1},
    "all": {"n_gpu_layers": 99},
    "as many as fit": {},
    "cache on the host": {"kv_offload": False},
    "one layer, cache on the host": {"n_gpu_layers": 2, "kv_offload": False},
    "feed forward on the CPU": {"tensor_overrides": [(r"^blk\.\d+\.ffn_", "CPU")]},
    "attention on the device": {"n_gpu_layers": 0, "tensor_overrides": [("attn_", "rpc")]},
    "split": {"both": True, "tensor_split": (1, 2)},
}


@pytest.mark.parametrize("flash_attn", [True, False])
@pytest.mark.parametrize("kind", PLACEMENTS)
def test_the_same_logits(servers: list[str], folder: Path, kind: str, flash_attn: bool) -> None:
    model = build(folder / "gemma5.gguf", TinyConfig("gemma3", n_layer=5))
    options = dict(PLACEMENTS[kind])
    options["devices"] = servers if options.pop("both", False) else servers[:1]
    if rules := options.get("tensor_overrides"):
        options["tensor_overrides"] = [(p, servers[0] if d == "rpc" else d) for p, d in rules]
    want, _ = logits(model.path, flash_attn=flash_attn)
    got, engine = logits(model.path, flash_attn=flash_attn, **options)
    assert engine.executor.scheduled
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_graphs_are_reused_and_split_as_they_must(servers: list[str], gemma3: TinyModel) -> None:
    splits = {}
    for kv_offload in (True, False):
        config = EngineConfig(
            n_ctx=64, n_batch=16, n_threads=1, devices=servers[:1], n_gpu_layers=99, kv_offload=kv_offload
        )
        with Engine(gemma3.path, config) as engine:
            engine.logits(IDS)
            for token in IDS:
                engine.extend(token)
            splits[kv_offload] = engine.executor.n_splits
            assert engine.stats.reuse_rate > 0.9
    # With the cache on the host, each of 3 layers comes to the CPU for its attention and goes back.
    assert splits[True] == 2 and splits[False] >= 2 + 2 * 3


def test_batches_of_several_shapes_take_turns(servers: list[str], gemma3: TinyModel) -> None:
    config = EngineConfig(n_ctx=64, n_batch=16, n_threads=1, devices=servers[:1], n_gpu_layers=3)
    with Engine(gemma3.path, config) as engine, Engine(gemma3.path, EngineConfig(n_ctx=64, n_threads=1)) as alone:
        for _ in range(4):
            for n in (16, 1, 7, 3):
                ids = prompt(n)
                engine.reset()
                alone.reset()
                np.testing.assert_allclose(engine.logits(ids), alone.logits(ids), rtol=0, atol=1e-5)
        assert engine.stats.graphs_built == 4


def test_parallel_sequences_have_cells(gemma3: TinyModel) -> None:
    sizes = []
    for n_parallel in (1, 8):
        with Engine(gemma3.path, EngineConfig(n_ctx=512, n_batch=64, n_threads=1, n_parallel=n_parallel)) as engine:
            caches = engine.cache.caches  # type: ignore[attr-defined]
            sizes.append([cache.n_cells for cache in caches])
    assert sizes == [[512, 256], [4096, 256]], "a window of 8 each, and a batch of 64, rounded up"


def test_no_room(folder: Path) -> None:
    model = build(folder / "wide.gguf", TinyConfig(n_layer=32, n_head_kv=4, d_head=64, n_ctx_train=2**22))
    with pytest.raises(OutOfMemoryError, match=r"CPU needs .*, KV cache 131072, .* MiB free. Lower n_ctx"):
        Engine(model.path, EngineConfig(n_ctx=2**22, n_threads=1))


def greedy(path: Path, ids: list[int], *, n: int, **options: Any) -> list[int]:
    config = EngineConfig(n_ctx=256, n_batch=32, n_threads=1, repack=False, **options)
    with Engine(path, config) as engine:
        engine.logits(ids[:-1])
        chosen = []
        token = ids[-1]
        for _ in range(n):
            token = int(np.argmax(engine.extend(token)))
            chosen.append(token)
        return chosen


def capitals(path: Path) -> list[int]:
    with GGUFFile(path) as file:
        return Tokenizer.from_metadata(file.metadata).encode("The capital of France is Paris. The capital of Italy is")


@pytest.mark.model
@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_real_models_say_the_same(servers: list[str], name: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(f"{name}_path")
    ids = capitals(path)
    alone = greedy(path, ids, n=8)
    assert len(set(alone)) > 4
    spread: tuple[dict[str, Any], ...] = (
        {"devices": servers[:1], "n_gpu_layers": 10},
        {"devices": servers[:1], "n_gpu_layers": 10, "kv_offload": False},
        {"devices": servers, "tensor_split": (1, 2)},
        {"devices": servers[:1], "tensor_overrides": [(r"^blk\..*\.ffn_", "CPU")]},
    )
    for options in spread if name == "smollm2" else spread[1:3]:
        assert greedy(path, ids, n=8, **options) == alone, options


@pytest.mark.vulkan
@pytest.mark.model
@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
@pytest.mark.parametrize("kv_offload", [True, False])
def test_real_models_say_the_same_with_vulkan(name: str, kv_offload: bool, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(f"{name}_path")
    ids = capitals(path)
    alone = greedy(path, ids, n=4)
    assert greedy(path, ids, n=4, devices=["Vulkan0"], n_gpu_layers=6, kv_offload=kv_offload) == alone
