"""A draft model beside a model: what it takes, that it helps, that its errors cost nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tiny import TinyConfig, TinyModel, build, prompt
from pyggml.engine import Engine
from pyggml.errors import ComputeError, ModelError
from pyggml.gguf import GGUFWriter
from pyggml_server.protocol import Generate, Load, Measure
from pyggml_server.runner import placing
from pyggml_server.runner.drafting import Drafts
from pyggml_server.runner.jobs import create_request

CONFIG: dict[str, Any] = {"n_ctx": 64, "n_parallel": 2, "n_threads": 1, "flash_attn": False}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[TinyModel]:
    """A model, a smaller one with its vocabulary, one with another."""
    folder = tmp_path_factory.mktemp("models")
    configs = [TinyConfig(), TinyConfig(n_layer=1, seed=5, n_ctx_train=32), TinyConfig(architecture="bert")]
    return [build(folder / f"{i}.gguf", config) for i, config in enumerate(configs)]


def load(path: Path, draft: Path | None) -> placing.Placed:
    request = Load(1, str(path), CONFIG, draft=str(draft) if draft is not None else None)
    return placing.load(request, progress=lambda _: None)


def close(placed: placing.Placed) -> None:
    if placed.drafts is not None:
        placed.drafts.close()
    placed.engine.close()


def answer(placed: placing.Placed, **fields: Any) -> tuple[list[int], int]:
    """The tokens, and how many were drafted."""
    request, _ = create_request(
        Generate(1, prompt(9), {"temperature": 0}, max_tokens=40, ignore_eos=True, **fields),
        placed.engine,
        placed.drafts,
    )
    task = placed.engine.submit(request)
    while not task.finished:
        placed.engine.step()
    assert task.error is None
    return task.generated, task.stats.drafted_tokens


def test_what_it_takes_is_counted(models: list[TinyModel]) -> None:
    model, small, _ = (str(each.path) for each in models)
    alone = placing.measure(Measure(1, model, CONFIG))
    both = placing.measure(Measure(1, model, CONFIG, draft=small))
    more = sum(each["needed"] for each in both.devices) - sum(each["needed"] for each in alone.devices)
    assert both.fits and more > models[1].path.stat().st_size // 2
    placed = load(models[0].path, models[1].path)
    single = load(models[0].path, None)
    assert sum(d["needed"] for d in placed.devices) > sum(d["needed"] for d in single.devices) + more // 2
    close(placed)
    close(single)


def test_it_is_asked_where_a_request_wants_it(models: list[TinyModel]) -> None:
    """Another request of the same runner drafts from the prompt, or not at all."""
    placed = load(models[0].path, models[0].path)
    assert placed.drafts is not None
    placed.drafts._model.p_min = 0.0  # random weights are never sure
    plain, none = answer(placed)
    assert none == 0
    tokens, n = answer(placed, speculate=4, by_model=True)
    assert tokens == plain and n > 20
    steps = placed.drafts.engine.metrics.steps
    assert answer(placed, speculate=4)[0] == plain and placed.drafts.engine.metrics.steps == steps
    close(placed)


def test_a_shorter_context_ends_the_drafts(models: list[TinyModel]) -> None:
    placed = load(models[0].path, models[1].path)
    assert placed.drafts is not None and placed.drafts.engine.n_ctx == 32 < placed.engine.n_ctx
    assert answer(placed, speculate=4, by_model=True)[0] == answer(placed)[0]
    close(placed)


def test_its_errors_cost_only_the_drafts(
    models: list[TinyModel], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    placed = load(models[0].path, models[1].path)
    assert placed.drafts is not None

    def fail(*_: object, **__: object) -> None:
        raise ComputeError("out of order")

    monkeypatch.setattr(placed.drafts.engine, "advance", fail)
    plain, _ = answer(placed)
    assert answer(placed, speculate=4, by_model=True) == (plain, 0)
    assert caplog.text.count("out of order") == 1
    close(placed)


def test_another_vocabulary(models: list[TinyModel]) -> None:
    """Both are named, without the server's folders; nothing stays open."""
    with pytest.raises(
        ModelError, match=r"^the draft model 'tiny' cannot draft for 'tiny': .*take one of its family \("
    ):
        load(models[0].path, models[2].path)
    with Engine(models[0].path) as engine, pytest.raises(ModelError, match="cannot draft for"):
        Drafts(models[2].path, engine)


def test_an_architecture_that_is_not_here(models: list[TinyModel], tmp_path: Path) -> None:
    """Models of other programs bring along heads that only those can use; the message says how to go on."""
    path = tmp_path / "head.gguf"
    writer = GGUFWriter(path, architecture="some-head")
    writer.add("general.name", "Head")
    writer.add_tensor("x.weight", np.zeros(32, np.float32))
    writer.write()
    with pytest.raises(ModelError, match=r"^the draft model 'Head' cannot draft for 'tiny': .*draft_num_predict 0"):
        load(models[0].path, path)
