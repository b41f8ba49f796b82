"""Random calls never end the process: each is computed or refused with an error of ours."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyggml.tensor import ops

from .cases import CASES, NO_CASE

CHILD = Path(__file__).with_name("fuzz_child.py")


class Child:
    """The process that makes the calls; a new one when it died."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, name: str, seed: int) -> str:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{name} {seed}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        if not answer:
            self.close()
            return "DIED"
        self.answers[answer.split()[0]] += 1
        return answer

    def close(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()
            self._process = None


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    runner = Child()
    yield runner
    runner.close()


def test_every_operation_has_a_case() -> None:
    functions = {name for name in ops.__all__ if name[0].islower()}
    assert functions - set(NO_CASE) == set(CASES)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=10, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1_000_000))
def test_random_calls(child: Child, name: str, seed: int) -> None:
    answer = child.ask(name, seed)
    hint = f"repeat with: python {CHILD} {name} {seed}"
    assert answer != "DIED", f"the process died; {hint}"
    assert not answer.startswith("LEAK"), f"{answer}; {hint}"


def test_the_valid_call_of_each_case_is_computed(child: Child) -> None:
    for name in CASES:
        assert any(child.ask(name, seed) == "computed" for seed in range(40)), name
