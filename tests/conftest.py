"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest

from pyggml_server.errors import ServerError
from pyggml_server.names import Name
from pyggml_server.store import Store


def _model_path(name: str) -> Path:
    folder = Path(os.environ.get("PYGGML_TEST_MODELS") or "~/.cache/pyggml-tests").expanduser()
    try:
        return Store(folder).get(Name.parse(name)).path
    except ServerError as error:
        pytest.fail(f"the test model {name} is not in {folder} ({error}); bring it with: scripts/models")


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct, Q4_1 (architecture llama)."""
    return _model_path("smollm2:135m")


@pytest.fixture(scope="session")
def gemma3_path() -> Path:
    """Gemma-3-270m, Q4_K_M (architecture gemma3; base model, no chat template)."""
    return _model_path("gemma3:270m")


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    """all-MiniLM-L6-v2, F16 (architecture bert, mean pooling)."""
    return _model_path("all-minilm")
