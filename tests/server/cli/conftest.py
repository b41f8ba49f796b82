"""What the tests of the commands share."""

from pathlib import Path

import pytest

from helpers.tiny import TinyConfig, TinyModel, build


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A model that answers nonsense at once."""
    return build(tmp_path_factory.mktemp("models") / "tiny.gguf", TinyConfig(n_ctx_train=256))


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that only embeds."""
    folder = tmp_path_factory.mktemp("models")
    return build(folder / "bert.gguf", TinyConfig("bert", n_head=2, n_ctx_train=48)).path
