"""A smaller model proposes, the larger one disposes."""

from pathlib import Path

import pytest

from helpers.tiny import TinyConfig, TinyModel, build, prompt
from pyggml.engine import DraftModel, Engine, EngineConfig, Request
from pyggml.errors import ModelError, ParameterError
from pyggml.sampling import SamplingParams
from pyggml.tensor import DType

EXACT = {"n_threads": 1, "type_k": DType.F32, "type_v": DType.F32, "flash_attn": False}
GREEDY = SamplingParams(temperature=0)


def answers(engine: Engine, drafter: DraftModel | None, n: int = 30) -> list[list[int]]:
    tasks = [
        engine.submit(Request(prompt(9, seed=i), GREEDY, max_tokens=n, ignore_eos=True, drafter=drafter))
        for i in range(3)
    ]
    while not all(task.finished for task in tasks):
        engine.step()
    assert [task.error for task in tasks] == [None] * 3
    return [task.generated for task in tasks]


@pytest.mark.parametrize("p_min", [0.0, 0.3])
@pytest.mark.parametrize("same", [True, False])
def test_the_answer_stays_the_same(llama: TinyModel, tmp_path: Path, same: bool, p_min: float) -> None:
    other = llama if same else build(tmp_path / "draft.gguf", TinyConfig(n_layer=1, seed=9))
    config = EngineConfig(n_ctx=64, n_parallel=3, **EXACT)
    with Engine(llama.path, config) as engine, Engine(other.path, config) as small:
        want = answers(engine, None)
        engine.reset()
        steps = engine.metrics.steps
        assert answers(engine, DraftModel(small, engine.tokenizer, p_min=p_min)) == want
        drafted, accepted = engine.metrics.drafted_tokens, engine.metrics.accepted_tokens
        if same and p_min == 0.0:
            assert accepted == drafted > 20 and engine.metrics.steps - steps < 40
        if not same and p_min == 0.0:
            assert accepted < drafted / 2


def test_a_short_draft_context_ends_the_drafts(llama: TinyModel) -> None:
    with (
        Engine(llama.path, EngineConfig(n_ctx=64, n_parallel=3, **EXACT)) as engine,
        Engine(llama.path, EngineConfig(n_ctx=16, n_parallel=3, **EXACT)) as small,
    ):
        want = answers(engine, None)
        engine.reset()
        assert answers(engine, DraftModel(small, engine.tokenizer)) == want


def test_another_vocabulary_is_refused(llama: TinyModel, bert: TinyModel, gemma3: TinyModel) -> None:
    with Engine(llama.path, EngineConfig(n_ctx=64, n_threads=1)) as engine:
        with Engine(bert.path, EngineConfig(n_threads=1)) as other, pytest.raises(ModelError, match="family"):
            DraftModel(other, engine.tokenizer)
        with pytest.raises(ParameterError, match="p_min"):
            DraftModel(engine, engine.tokenizer, p_min=1.5)
