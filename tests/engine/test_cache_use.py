"""What the engine keeps and computes again: prefixes, graphs, windows, limits."""

import numpy as np
import pytest

from helpers.reference import logits
from helpers.tiny import TinyModel, prompt
from pyggml.engine import Engine, EngineConfig
from pyggml.errors import ContextFullError, ParameterError
from pyggml.tensor import DType

EXACT = {"n_threads": 1, "type_k": DType.F32, "type_v": DType.F32}


def computed(engine: Engine, ids: list[int]) -> tuple[np.ndarray, int, int]:
    """Logits of the last token, tokens kept, batches computed."""
    steps = engine.stats.steps
    row, kept = engine.advance(ids)
    return row[0].copy(), kept, engine.stats.steps - steps


def test_graphs_are_built_once_per_256_cells(llama: TinyModel) -> None:
    with Engine(llama.path, EngineConfig(n_ctx=600, n_batch=64, n_threads=1)) as engine:
        engine.advance(prompt(10))
        built = [engine.extend(3)[0, 0] and engine.stats.graphs_built]
        for _ in range(11, 600):
            engine.extend(3)
            built.append(engine.stats.graphs_built)
    # The first decode step built one; position 256 (the 247th step) and position 512 each build one more.
    steps = np.flatnonzero(np.diff(built)) + 1 + 10
    assert steps.tolist() == [256, 512] and built[-1] - built[0] == 2


def test_chunks_of_a_prompt_share_a_graph(llama: TinyModel) -> None:
    with Engine(llama.path, EngineConfig(n_ctx=256, n_batch=16, n_threads=1)) as engine:
        engine.advance(prompt(160))
        assert (engine.stats.steps, engine.stats.graphs_built) == (10, 2)  # without and with an output
        engine.reset()
        engine.advance(prompt(160, seed=8))
        assert (engine.stats.steps, engine.stats.graphs_built) == (20, 2)
        assert engine.stats.reuse_rate == 0.9 and 0 < engine.stats.python_share < 1


@pytest.mark.parametrize(
    ("second", "kept"),
    [
        (lambda ids: ids, 29),  # the last token is always computed, for its logits
        (lambda ids: ids + [5, 6], 30),
        (lambda ids: ids[:20], 19),
        (lambda ids: [*ids[:10], ids[10] ^ 1, *ids[11:]], 10),
        (lambda ids: [ids[0] ^ 1, *ids[1:]], 0),
        (lambda ids: ids[:1], 0),
    ],
    ids=["same", "longer", "shorter", "changed", "other", "one"],
)
def test_a_common_prefix_is_kept(llama: TinyModel, second, kept: int) -> None:
    ids = prompt(30)
    with Engine(llama.path, EngineConfig(n_ctx=64, n_batch=64, **EXACT)) as engine:
        assert computed(engine, ids)[1:] == (0, 1)
        row, found, steps = computed(engine, second(ids))
        assert (found, steps) == (kept, 1)
        assert list(engine.history) == second(ids)
        engine.reset()
        fresh, _, _ = computed(engine, second(ids))
    np.testing.assert_allclose(row, fresh, rtol=0, atol=1e-5)
    np.testing.assert_allclose(row, logits(llama, second(ids))[-1], rtol=0, atol=1e-5)


def test_a_prefix_is_kept_only_while_the_window_holds_what_it_needs(gemma3: TinyModel) -> None:
    """The window layers have 256 cells; of 400 tokens they hold the last ones only."""
    ids = prompt(400)
    with Engine(gemma3.path, EngineConfig(n_ctx=512, n_batch=64, **EXACT)) as engine:
        engine.advance(ids)
        assert computed(engine, ids)[1] == 399
        row, kept, _ = computed(engine, ids[:60] + [7])
        assert kept == 0
        np.testing.assert_allclose(row, logits(gemma3, ids[:60] + [7])[-1], rtol=0, atol=1e-2)
        row, kept, _ = computed(engine, ids[:59] + [9])
        assert kept == 59
        np.testing.assert_allclose(row, logits(gemma3, ids[:59] + [9])[-1], rtol=0, atol=1e-2)


def test_a_long_text_through_a_small_window_cache(gemma3: TinyModel) -> None:
    ids = prompt(300)
    want = logits(gemma3, ids)
    with Engine(gemma3.path, EngineConfig(n_ctx=320, n_batch=8, **EXACT)) as engine:
        np.testing.assert_allclose(engine.logits(ids[:290], outputs="all"), want[:290], rtol=0, atol=1e-2)
        for i in range(290, 300):
            np.testing.assert_allclose(engine.extend(ids[i])[0], want[i], rtol=0, atol=1e-2)


def test_outputs_at_chosen_positions(llama: TinyModel) -> None:
    ids = prompt(40)
    want = logits(llama, ids)
    with Engine(llama.path, EngineConfig(n_ctx=64, n_batch=16, **EXACT)) as engine:
        for outputs in ([0], [39], [0, 15, 16, 17, 39], [3, 4], list(range(40)), np.array([20, 30])):
            got = engine.logits(ids, outputs=outputs)
            np.testing.assert_allclose(got, want[outputs], rtol=0, atol=1e-5)
        np.testing.assert_allclose(engine.logits(ids), want[-1:], rtol=0, atol=1e-5)
        for bad in ([], [40], [-1], [2, 1], [1, 1], "first"):
            with pytest.raises(ParameterError, match="outputs"):
                engine.logits(ids, outputs=bad)


def test_the_context_ends_where_it_says(engine: Engine) -> None:
    assert engine.n_ctx == 64
    engine.advance(prompt(64))
    with pytest.raises(ContextFullError, match="context of 64 tokens is full"):
        engine.extend(3)
    for call in (engine.advance, engine.logits, engine.generate, lambda ids: engine.logits(ids, outputs="all")):
        with pytest.raises(ContextFullError, match="65 tokens"):
            call(prompt(65))
    assert len(engine.history) == 64  # nothing was lost
    assert engine.logits(prompt(64)).shape == (1, 46)


def test_the_models_own_context(llama: TinyModel) -> None:
    with Engine(llama.path, EngineConfig(n_ctx=0, n_threads=1)) as engine:
        assert engine.n_ctx == 512
