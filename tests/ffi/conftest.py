from collections.abc import Callable
from subprocess import CompletedProcess, run
from sys import executable

import pytest

Runner = Callable[[str], "CompletedProcess[str]"]


@pytest.fixture
def in_child() -> Runner:
    """Run Python source in a process of its own."""

    def start(source: str) -> "CompletedProcess[str]":
        return run([executable, "-c", source], capture_output=True, text=True, timeout=120)

    return start
