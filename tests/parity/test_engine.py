"""Our engine against what llama.cpp and transformers computed on the same files.

Our patches to ggml add in another order than llama.cpp's kernels. With ``GGML_CPU_UPSTREAM_KERNELS`` in the environment
they are off, and what the engine computes must be llama.cpp's to the last bit: that is tested in a child process. With
them, tokens may differ where two are nearly equally likely, and logits may be no further from the truth than its own.
"""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pyggml.engine import Engine, EngineConfig

from .goldens import Case, Report, explain, load_embeddings, load_goldens


def always(model: str, name: str, *, flash: bool) -> bool:
    """Whether a case is in the default suite: all of them take minutes."""
    if name == "long-prose":  # past the window that Gemma has
        return flash and model == "gemma3-270m"
    return name == "factual" or (flash and name == "chat")


CASES = [
    pytest.param(
        model,
        case.name,
        flash,
        marks=[] if always(model, case.name, flash=flash) else [pytest.mark.slow],
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


_opened: dict[tuple[Path, bool], Engine] = {}


def engine_for(path: Path, *, flash: bool) -> Engine:
    """Opened once per process."""
    if (path, flash) not in _opened:
        _opened[path, flash] = Engine(path, EngineConfig(n_threads=2, flash_attn=flash))
    return _opened[path, flash]


def run_in_child(path: Path, model: str, name: str, flash: bool) -> tuple[Report, bool]:
    """The report of a case, and whether the machine has the recorded instructions."""
    engine = engine_for(path, flash=flash)
    return run_case(engine, load_goldens(model).case(name), flash=flash), recorded_kernels(engine)


def turn_patches_off() -> None:
    os.environ["GGML_CPU_UPSTREAM_KERNELS"] = "1"


@pytest.fixture(scope="module")
def upstream() -> Iterator[ProcessPoolExecutor]:
    """A process that computes as llama.cpp does."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=turn_patches_off) as pool:
        yield pool


@pytest.fixture(scope="module")
def close_engines() -> Iterator[None]:
    yield
    while _opened:
        _opened.popitem()[1].close()


@pytest.fixture(scope="module")
def paths(smollm2_path: Path, gemma3_path: Path) -> dict[str, Path]:
    return {"smollm2": smollm2_path, "gemma3-270m": gemma3_path}


@pytest.mark.model
@pytest.mark.parametrize(("model", "name", "flash"), CASES)
def test_tokens_and_logits_are_llama_cpps(
    upstream: ProcessPoolExecutor, paths: dict[str, Path], model: str, name: str, flash: bool
) -> None:
    report, same_instructions = upstream.submit(run_in_child, paths[model], model, name, flash).result()
    print(report)
    assert report.explained, str(report)
    if same_instructions:
        assert report.first_divergence is None, str(report)
        assert report.max_difference <= 1e-4, str(report)
    # No further from the float32 computation than llama.cpp is, give or take what its own variants differ by.
    assert report.from_exact <= 1.5 * report.recorded_from_exact + 0.01, str(report)
    assert report.same_best >= report.compared_positions - 1, str(report)


@pytest.mark.model
@pytest.mark.usefixtures("close_engines")
@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("smollm2", "factual"),
        ("smollm2", "chat"),
        pytest.param("smollm2", "long-prose", marks=pytest.mark.slow),
        ("gemma3-270m", "factual"),
        ("gemma3-270m", "chat"),
        pytest.param("gemma3-270m", "long-prose", marks=pytest.mark.slow),
    ],
)
def test_with_our_kernels_logits_are_as_near_to_the_truth(paths: dict[str, Path], model: str, name: str) -> None:
    report = run_case(engine_for(paths[model], flash=True), load_goldens(model).case(name), flash=True)
    print(report)
    assert report.explained, str(report)
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
