"""Our engine against what llama.cpp and transformers computed on the same files."""

from pathlib import Path

import numpy as np
import pytest

from pyggml.engine import Engine, EngineConfig

from .goldens import Case, Report, explain, load_embeddings, load_goldens

ALWAYS = ("factual", "long-prose")  # without flash attention; the other prompts add minutes
CASES = [
    pytest.param(
        model,
        case.name,
        flash,
        marks=[] if flash or case.name in ALWAYS else [pytest.mark.slow],
        id=f"{model}-{case.name}-{'flash' if flash else 'plain'}",
    )
    for model in ("smollm2", "gemma3-270m")
    for flash in (True, False)
    for case in load_goldens(model).cases
]


def greedy(engine: Engine, ids: list[int], n: int) -> list[int]:
    """The ``n`` most likely tokens in turn, end of text ignored, as they were recorded."""
    engine.reset()  # the whole prompt in one batch, as the recording did: another split rounds differently
    row, _ = engine.advance(ids)
    found = [int(row[0].argmax())]
    while len(found) < n:
        found.append(int(engine.extend(found[-1])[0].argmax()))
    return found


def run_case(engine: Engine, case: Case, *, flash: bool) -> Report:
    """Logits at the recorded positions and 128 greedy tokens."""
    ids = [int(t) for t in case.prompt_ids]
    rows = engine.logits(ids, outputs=case.positions)
    return explain(case, greedy(engine, ids, 128), dict(zip(case.positions, rows, strict=True)), flash=flash)


def recorded_kernels(engine: Engine) -> bool:
    """Whether the CPU back end has the instructions of the machine that recorded: then every bit is the same."""
    features = engine.backends[0].device.features()
    return "AVX2" in features and not any(name.startswith(("AVX512", "AMX", "AVX_VNNI")) for name in features)


@pytest.fixture(scope="module")
def engines(request: pytest.FixtureRequest, smollm2_path: Path, gemma3_path: Path):
    opened: dict[tuple[str, bool], Engine] = {}

    def get(model: str, flash: bool) -> Engine:
        key = (model, flash)
        if key not in opened:
            path = smollm2_path if model == "smollm2" else gemma3_path
            opened[key] = Engine(path, EngineConfig(n_threads=2, flash_attn=flash))
        return opened[key]

    yield get
    for engine in opened.values():
        engine.close()


@pytest.mark.model
@pytest.mark.parametrize(("model", "name", "flash"), CASES)
def test_tokens_and_logits_are_llama_cpps(engines, model: str, name: str, flash: bool) -> None:
    engine = engines(model, flash)
    report = run_case(engine, load_goldens(model).case(name), flash=flash)
    print(report)
    assert report.explained, str(report)
    if recorded_kernels(engine):
        assert report.first_divergence is None, str(report)
        assert report.max_difference <= 1e-4, str(report)
    # No further from the float32 computation than llama.cpp is, give or take what its own variants differ by.
    assert report.from_exact <= 1.5 * report.recorded_from_exact + 0.01, str(report)
    assert report.same_best >= report.compared_positions - 1, str(report)


@pytest.mark.model
def test_embeddings_are_those_of_transformers(minilm_path: Path) -> None:
    goldens = load_embeddings()
    with Engine(minilm_path, EngineConfig(n_threads=2)) as engine:
        for sentence, ids in zip(goldens.sentences, goldens.token_ids, strict=True):
            assert engine.tokenizer.encode(sentence) == list(ids), sentence
        ours = engine.embed(goldens.sentences)
    cosines = np.sum(ours * goldens.embeddings, axis=1)
    assert cosines.min() >= 0.9999, cosines
