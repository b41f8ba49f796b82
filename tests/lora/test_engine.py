"""Adapters through the engine: requests with their own, embeddings, several devices."""

from pathlib import Path

import numpy as np
import pytest

from helpers.reference import logits
from helpers.rpc import rpc_server
from helpers.tiny import TinyConfig, TinyModel, build, prompt
from pyggml.engine import Engine, EngineConfig, Request
from pyggml.errors import ModelError, ParameterError
from pyggml.models import Pooling
from pyggml.sampling import SamplingParams
from pyggml.tensor import DType

from .lab import Pairs, adapter, delta, merged_weights, opened, random_pairs
from .test_values import targets

IDS = prompt(12)
END = 2
GREEDY = SamplingParams(temperature=0.0, repeat_penalty=1.0)
OPTIONS = {"n_ctx": 64, "n_batch": 32, "n_threads": 1, "type_k": DType.F32, "type_v": DType.F32, "flash_attn": False}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return build(tmp_path_factory.mktemp("lora") / "m.gguf", TinyConfig(bias=True, n_layer=3))


@pytest.fixture(scope="module")
def pairs(model: TinyModel) -> list[Pairs]:
    return [random_pairs(model.path, targets(model), rank=4, seed=seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def files(model: TinyModel, pairs: list[Pairs]) -> list[Path]:
    return [adapter(model.path.with_name(f"{i}.gguf"), model.path, each, alpha=4.0) for i, each in enumerate(pairs)]


def continuation(model: TinyModel, pairs: list[Pairs], scales: dict[int, float], n: int) -> list[int]:
    """The most likely tokens but the end's by a float64 computation with merged weights."""
    changes = {
        name: sum(scale * delta(pairs[i][name], 4.0) for i, scale in scales.items()) for name in pairs[0] if scales
    }
    merged, ids = merged_weights(model, changes), list(IDS)
    for _ in range(n):
        row = logits(merged, ids)[-1]
        row[END] = -np.inf
        ids.append(int(row.argmax()))
    return ids[len(IDS) :]


def test_requests_at_once_with_adapters_of_their_own(model: TinyModel, pairs: list[Pairs], files: list[Path]) -> None:
    wishes: list[dict[int, float]] = [{}, {0: 1.0}, {1: 0.5}, {0: -0.5, 1: 1.0}, {0: 1.0}]
    with Engine(model.path, EngineConfig(n_parallel=4, adapters=files, **OPTIONS)) as engine:
        assert engine.n_adapters == 2
        tasks = [
            engine.submit(Request(IDS, GREEDY, max_tokens=10, ignore_eos=True, adapters=scales)) for scales in wishes
        ]
        while not all(task.finished for task in tasks):
            engine.step()
    answers = [task.generated for task in tasks]
    for scales, answer in zip(wishes, answers, strict=True):
        assert answer == continuation(model, pairs, scales, 10), scales
    assert len({tuple(answer) for answer in answers}) == 4


def test_a_prompt_that_another_adapter_read_is_read_again(model: TinyModel, files: list[Path]) -> None:
    with Engine(model.path, EngineConfig(n_parallel=2, adapters=files, **OPTIONS)) as engine:
        cached = []
        for scales in ({0: 1.0}, {0: 1.0}, {0: 0.5}, {}, {}):
            task = engine.submit(Request(IDS, GREEDY, max_tokens=1, adapters=scales))
            while not task.finished:
                engine.step()
            cached.append(task.stats.cached_tokens)
    assert cached == [0, len(IDS) - 1, 0, 0, len(IDS) - 1]


def test_adapters_that_are_not_there(model: TinyModel, files: list[Path], tmp_path: Path) -> None:
    with (
        Engine(model.path, EngineConfig(adapters=files[:1], **OPTIONS)) as engine,
        pytest.raises(ParameterError, match="no adapter 1"),
    ):
        engine.submit(Request(IDS, adapters={1: 1.0}))
    with pytest.raises(FileNotFoundError), Engine(model.path, EngineConfig(adapters=[tmp_path / "x.gguf"], **OPTIONS)):
        pass
    with (
        pytest.raises(ModelError, match=r"general\.type is .*a LoRA adapter has"),
        Engine(model.path, EngineConfig(adapters=[model.path], **OPTIONS)),
    ):
        pass


def test_embeddings(model: TinyModel, pairs: list[Pairs], files: list[Path]) -> None:
    merged = merged_weights(model, {name: 0.5 * delta(pair, 4.0) for name, pair in pairs[1].items()})
    texts = [prompt(n, seed=n) for n in (3, 9, 20)]
    with Engine(model.path, EngineConfig(adapters=files, **OPTIONS)) as engine:
        states = engine.embedder.token_states(texts, adapters={1: 0.5})
        vectors = engine.embedder.embed(texts, adapters={1: 0.5}, pooling=Pooling.LAST, normalize=False).vectors
    for ids, rows, vector in zip(texts, states, vectors, strict=True):
        np.testing.assert_allclose(rows @ merged.weights["token_embd.weight"].T, logits(merged, ids), atol=5e-5)
        np.testing.assert_allclose(vector, rows[-1], rtol=0, atol=1e-5)


def test_layers_on_another_device(model: TinyModel, files: list[Path]) -> None:
    """Each pair lives beside the weight that it changes."""
    with opened(model.path, files) as lab:
        want = lab.logits(IDS, {0: 1.0, 1: -0.5})
    with rpc_server() as endpoint:
        config = EngineConfig(devices=[f"rpc://{endpoint}"], n_gpu_layers=2, adapters=files, **OPTIONS)
        with Engine(model.path, config) as engine:
            adapters = engine._decoder.adapters
            assert adapters is not None
            devices = {device.name for device, n_bytes in adapters.sizes() if n_bytes}
            assert len(devices) == 2 and "CPU" in devices
            tokens = _answer(engine, {0: 1.0, 1: -0.5})
    with Engine(model.path, EngineConfig(adapters=files, **OPTIONS)) as engine:
        assert tokens == _answer(engine, {0: 1.0, 1: -0.5})
    want[-1, END] = -np.inf
    assert tokens[0] == int(want[-1].argmax())


def _answer(engine: Engine, scales: dict[int, float]) -> list[int]:
    task = engine.submit(Request(IDS, GREEDY, max_tokens=8, ignore_eos=True, adapters=scales))
    while not task.finished:
        engine.step()
    assert task.error is None
    return task.generated
