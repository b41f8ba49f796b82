"""Speculative decoding at temperature 0 says what decoding token by token says, with real models in 4 to 8 bits."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from pyggml.engine import Drafter, DraftModel, Engine, EngineConfig, PromptLookup, Request
from pyggml.sampling import SamplingParams

N = 160
CODE = """def area(width, height):
    return width * height

def volume(width, height, depth):
    return width * height * depth

Rewrite the code above with type annotations and docstrings, and keep everything else as it is.
"""
PROMPTS = {"code": CODE, "long": CODE * 13, "prose": "Once upon a time, in a small village by the sea,"}


class Noisy:
    """Knows the answer, and gives parts of it with some mistakes: drafts of every length, right up to anywhere."""

    def __init__(self, text: Sequence[int], *, seed: int) -> None:
        self.text, self.random = text, random.Random(seed)

    def draft(self, tokens: Sequence[int], *, n_max: int) -> list[int]:
        begin = len(tokens)
        draft = list(self.text[begin : begin + self.random.randint(0, n_max)])
        return [self.random.randint(5, 1000) if self.random.random() < 0.1 else token for token in draft]

    def accepted(self, n_drafted: int, n_accepted: int) -> None:
        """Learns nothing."""


def answer(engine: Engine, ids: list[int], drafter: Drafter | None) -> list[int]:
    engine.reset()
    task = engine.submit(Request(ids, SamplingParams(temperature=0), max_tokens=N, ignore_eos=True, drafter=drafter))
    while not task.finished:
        engine.step()
    assert task.error is None
    if drafter is not None:
        assert task.stats.drafted_tokens > 20 and task.stats.accepted_tokens > 5, "nothing was tried"
    return task.generated


def same_instructions(engine: Engine) -> bool:
    features = engine.backends[0].device.features()
    return "AVX2" in features and not any(name.startswith(("AVX512", "AMX", "AVX_VNNI")) for name in features)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.model
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("model", ["smollm2", "gemma3"])
def test_the_text_is_the_same(request: pytest.FixtureRequest, model: str, prompt: str) -> None:
    path: Path = request.getfixturevalue(f"{model}_path")
    with Engine(path, EngineConfig(n_ctx=2048, n_threads=2)) as engine, Engine(path, EngineConfig(n_ctx=2048)) as small:
        if not same_instructions(engine):
            pytest.skip("other instructions, other kernels")
        ids = engine.tokenizer.encode(PROMPTS[prompt])
        want = answer(engine, ids, None)
        drafters: dict[str, Drafter] = {
            "noisy": Noisy(ids + want, seed=1),
            "noisy too": Noisy(ids + want, seed=2),
            "model": DraftModel(small, engine.tokenizer, p_min=0.5),
        }
        if prompt != "prose":
            drafters["lookup"] = PromptLookup()
        for name, drafter in drafters.items():
            assert answer(engine, ids, drafter) == want, name
