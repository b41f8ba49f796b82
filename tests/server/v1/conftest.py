"""The server that all tests of this folder talk to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from v1_server import THINK_TEMPLATE, TOOLS_TEMPLATE, Served, serving


@pytest.fixture(scope="session")
def served(smollm2_path: Path, minilm_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A running server that has the models smol, smol-tools, smol-thinks and minilm."""
    models = {
        "smol": (smollm2_path, None),
        "smol-tools": (smollm2_path, TOOLS_TEMPLATE),
        "smol-thinks": (smollm2_path, THINK_TEMPLATE),
        "minilm": (minilm_path, None),
    }
    with serving(tmp_path_factory.mktemp("served"), models) as server:
        yield server
