"""Ways to load and to compute that must not change the answer, options that are refused, the life of an engine."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tiny import TinyConfig, TinyModel, build, prompt
from pyggml.engine import Engine, EngineConfig
from pyggml.errors import BackendError, ClosedError, ComputeError, ContextFullError, ModelError, ParameterError
from pyggml.gguf import GGMLType, GGUFFile, GGUFWriter, ValueType
from pyggml.tensor import DType

IDS = prompt(30)


def answer(model: TinyModel, **options: Any) -> np.ndarray:
    with Engine(model.path, EngineConfig(**({"n_ctx": 64, "n_threads": 1} | options))) as engine:
        return engine.logits(IDS, outputs="all")


@pytest.mark.parametrize("weights", [GGMLType.F32, GGMLType.Q4_0, GGMLType.Q8_0], ids=lambda t: t.name)
def test_mapped_and_copied_weights_are_the_same(folder: Path, weights: GGMLType) -> None:
    model = build(folder / f"{weights.name}.gguf", TinyConfig(weights=weights, tied=False))
    mapped = answer(model, repack=False)
    np.testing.assert_array_equal(answer(model, use_mmap=False, repack=False), mapped)
    # Rearranged kernels sum in another order and round activations in other groups; logits are up to 4.
    atol = 1e-5 if weights is GGMLType.F32 else 0.1
    for use_mmap in (True, False):
        np.testing.assert_allclose(answer(model, use_mmap=use_mmap), mapped, rtol=0, atol=atol)


def test_where_the_weights_are(llama: TinyModel) -> None:
    with Engine(llama.path, EngineConfig(n_ctx=64, n_threads=1, repack=False)) as mapped:
        assert list(mapped.weights.summary()) == ["CPU_mapped"]
        total = sum(mapped.weights.summary().values())
        assert total >= sum(info.n_bytes for info in mapped.file.tensors.values())
    with Engine(llama.path, EngineConfig(n_ctx=64, n_threads=1, repack=False, use_mmap=False)) as copied:
        assert list(copied.weights.summary()) == ["CPU"]


def test_progress_ends_at_one(llama: TinyModel) -> None:
    for use_mmap in (True, False):
        seen: list[float] = []
        with Engine(llama.path, EngineConfig(n_ctx=64, n_threads=1, use_mmap=use_mmap), progress=seen.append):
            assert seen[-1] == 1.0 and seen == sorted(seen) and min(seen) > 0


def test_threads_do_not_change_the_answer(llama: TinyModel) -> None:
    np.testing.assert_allclose(answer(llama, n_threads=2), answer(llama), rtol=0, atol=1e-5)


@pytest.mark.parametrize("n_threads", [0, -1])
def test_no_threads(llama: TinyModel, n_threads: int) -> None:
    with pytest.raises(ParameterError, match="threads"):
        answer(llama, n_threads=n_threads)


def test_cache_types(llama: TinyModel) -> None:
    """Coarser types are further away: each bit less doubles the error. Logits have a deviation of 1."""
    exact = answer(llama, type_k=DType.F32, type_v=DType.F32)

    def error(cache: DType) -> float:
        return float(np.sqrt(np.mean((answer(llama, type_k=cache, type_v=cache) - exact) ** 2)))

    found = {cache: error(cache) for cache in (DType.F16, DType.BF16, DType.Q8_0, DType.Q5_1, DType.Q5_0, DType.Q4_1)}
    assert 0 < found[DType.F16] < 2e-3 < found[DType.BF16] < 2e-2
    assert found[DType.F16] < found[DType.Q8_0] < 3e-2
    assert found[DType.Q8_0] < found[DType.Q5_1] < found[DType.Q4_1] < 0.4
    assert found[DType.Q8_0] < found[DType.Q5_0] < error(DType.Q4_0) < 0.4
    assert found[DType.Q8_0] < error(DType.IQ4_NL) < 0.4


def test_options_that_do_not_go_together(folder: Path, llama: TinyModel) -> None:
    with pytest.raises(ParameterError, match="V cache needs flash attention"):
        answer(llama, type_v=DType.Q8_0, flash_attn=False)
    odd = build(folder / "d16.gguf", TinyConfig(d_head=16))
    with pytest.raises(ParameterError, match="Q8_0 K cache needs a head size that is a multiple of 32, layer 0 has 16"):
        answer(odd, type_k=DType.Q8_0)
    with pytest.raises(ParameterError, match="no flash attention for this model with Q8_0"):
        answer(odd, type_k=DType.Q8_0, flash_attn=True)
    assert np.isfinite(answer(odd)).all()
    with pytest.raises(BackendError, match="TPU7"):
        answer(llama, device="TPU7")


@pytest.mark.parametrize(
    "options",
    [{"n_ctx": -1}, {"n_batch": 0}, {"type_k": DType.I32}, {"type_v": "f16"}, {"type_k": DType.Q6_K}],
    ids=str,
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=next(iter(options))):
        EngineConfig(**options)


@pytest.mark.parametrize("ids", [[46], [-1], [3, 4, 1000], [2**40]])
def test_ids_outside_of_the_vocabulary(engine: Engine, ids: list[int]) -> None:
    engine.advance([3, 4])
    for call in (engine.logits, engine.advance, engine.generate, lambda ids: engine.extend(ids[-1])):
        with pytest.raises(ParameterError, match="outside of the vocabulary of 46"):
            call(ids)
    assert list(engine.history) == [3, 4]


def test_nothing_to_continue(engine: Engine) -> None:
    for call in (engine.logits, engine.advance, engine.generate):
        with pytest.raises(ParameterError, match="empty"):
            call([])
    with pytest.raises(TypeError):
        engine.logits([3.5])


def test_a_closed_engine(llama: TinyModel) -> None:
    engine = Engine(llama.path, EngineConfig(n_ctx=64, n_threads=1))
    generation = iter(engine.generate([3, 4]))
    next(generation)
    engine.close()
    engine.close()
    calls = (
        lambda: engine.logits([3]),
        lambda: engine.advance([3]),
        lambda: engine.extend(3),
        lambda: engine.generate([3]),
        lambda: engine.reset(),
        lambda: next(generation),
    )
    for call in calls:
        with pytest.raises(ClosedError, match="engine was closed"):
            call()
    unused = Engine(llama.path, EngineConfig(n_ctx=64, n_threads=1))
    unused.close()
    with pytest.raises(ClosedError):
        unused.logits("hello")


def test_an_error_while_computing_forgets_the_cache(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    want = engine.logits(IDS)
    calls = 0

    def fail(graph: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ComputeError("the device fell over")
        original(graph)

    original = engine.executor.compute
    monkeypatch.setattr(engine.executor, "compute", fail)
    with pytest.raises(ComputeError, match="fell over"):
        engine.advance(prompt(40, seed=9))
    assert list(engine.history) == [] and engine.cache.can_resume(0, 0) and not engine.cache.can_resume(0, 1)
    np.testing.assert_array_equal(engine.logits(IDS), want)


def test_two_engines_at_once(llama: TinyModel, gemma3: TinyModel) -> None:
    alone = [answer(llama), answer(gemma3)]
    config = EngineConfig(n_ctx=64, n_threads=1)
    with (
        Engine(llama.path, config) as first,
        Engine(gemma3.path, config) as second,
        Engine(llama.path, config) as third,
    ):
        first.advance(IDS)
        np.testing.assert_array_equal(second.logits(IDS, outputs="all"), alone[1])
        third.advance(prompt(20, seed=9))
        np.testing.assert_array_equal(first.logits(IDS, outputs="all"), alone[0])
        third.close()
        np.testing.assert_array_equal(first.logits(IDS, outputs="all"), alone[0])


def test_embedding_limits(bert: TinyModel, engine: Engine) -> None:
    with Engine(bert.path, EngineConfig(n_threads=1)) as embedder:
        assert embedder.embed([prompt(48)]).shape == (1, 64) and embedder.embed([]).shape == (0, 64)
        with pytest.raises(ContextFullError, match="text 1 has 49 tokens; the context holds 48"):
            embedder.embed([prompt(2), prompt(49)])
        with pytest.raises(ParameterError, match="57"):
            embedder.embed([[57]])
        texts = embedder.embed(["hello the", "the", "hello the"])
        np.testing.assert_array_equal(texts[0], texts[2])
        assert np.abs(texts[0] - texts[1]).max() > 0.01
        for call in (embedder.logits, embedder.generate, embedder.advance):
            with pytest.raises(ModelError, match="only embeds"):
                call([5])
        with pytest.raises(ModelError, match="only embeds"):
            embedder.extend(5)
    with (
        Engine(bert.path, EngineConfig(n_ctx=8, n_threads=1)) as short,
        pytest.raises(ContextFullError, match="holds 8"),
    ):
        short.embed([prompt(9)])
    # A model that names no pooling: the mean of its states.
    np.testing.assert_allclose(np.linalg.norm(engine.embed(["hello", "the"]), axis=1), 1, rtol=1e-5)
    with pytest.raises(ModelError, match="does not rank"):
        engine.rerank("hello", ["the"])


@pytest.mark.parametrize("use_mmap", [True, False])
def test_a_split_model(tmp_path: Path, llama: TinyModel, use_mmap: bool) -> None:
    with GGUFFile(llama.path) as file:
        names = list(file.tensors)
        for no, part in enumerate((names[:7], names[7:8], names[8:])):
            writer = GGUFWriter(tmp_path / f"tiny-{no + 1:05}-of-00003.gguf")
            writer.add("split.no", no, type=ValueType.UINT16)
            writer.add("split.count", 3, type=ValueType.UINT16)
            writer.add("split.tensors.count", len(names), type=ValueType.INT32)
            for key, value in file.metadata.items() if no == 0 else ():
                writer.add(key, value, type=file.types[key].type, item=file.types[key].item)
            for name in part:
                info = file.tensors[name]
                writer.add_tensor(name, bytes(file.data(name)), type=info.type, shape=info.shape)
            writer.write()
    split = replace(llama, path=tmp_path / "tiny-00001-of-00003.gguf")
    np.testing.assert_array_equal(answer(split, use_mmap=use_mmap), answer(llama, use_mmap=use_mmap))
