"""Logarithms of probabilities against numpy in double precision."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pyggml.errors import ComputeError, ParameterError
from pyggml.sampling import logprobs

Floats = npt.NDArray[np.float32]


def exact(row: Floats) -> npt.NDArray[np.float64]:
    x = row.astype(np.float64)
    return np.asarray(x - x.max() - np.log(np.exp(x - x.max()).sum()))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    row=arrays(np.float32, st.integers(1, 70), elements=st.sampled_from([0.0, -0.0, 1.5, 30.0, -80.0, -2.0, 3e38])),
    at=st.integers(0, 69),
    top=st.integers(0, 20),
)
def test_small_rows(row: Floats, at: int, top: int) -> None:
    with np.errstate(over="ignore"):
        want = exact(row)
    found = logprobs(row, at % row.size, top=top)
    assert found.token == at % row.size
    assert found.logprob == pytest.approx(want[found.token], abs=1e-12)
    order = sorted(range(row.size), key=lambda i: (-row[i], i))[:top]
    assert [token for token, _ in found.top] == order
    assert [value for _, value in found.top] == pytest.approx(want[order].tolist(), abs=1e-12)


@pytest.mark.parametrize("n", [1023, 1024, 1025, 49_152, 262_144])
def test_large_rows(n: int) -> None:
    row = (np.random.default_rng(n).normal(size=n) * 4 - 10).astype(np.float32)
    row[n // 3] = -np.inf
    want = exact(row)
    found = logprobs(row, n - 1, top=20)
    assert found.logprob == pytest.approx(want[-1], abs=1e-11)
    order = np.argsort(-want, kind="stable")[:20]
    assert [token for token, _ in found.top] == order.tolist()
    assert [value for _, value in found.top] == pytest.approx(want[order].tolist(), abs=1e-11)
    assert logprobs(row, n // 3).logprob == -np.inf
    assert logprobs(row, n // 3).top == ()


def test_fewer_tokens_than_asked_for() -> None:
    row = np.array([1.0, -np.inf, 2.0], np.float32)
    assert [token for token, _ in logprobs(row, 0, top=20).top] == [2, 0]


@pytest.mark.parametrize(("value", "message"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_broken_rows(value: float, message: str) -> None:
    row = np.zeros(2000, np.float32)
    row[1500] = value
    with pytest.raises(ComputeError, match=message):
        logprobs(row, 0)
    with pytest.raises(ComputeError, match="infinite"):
        logprobs(np.full(4, -np.inf, np.float32), 0)


@pytest.mark.parametrize(
    ("row", "token", "top", "message"),
    [
        (np.zeros(4, np.float32), 4, 0, "token 4"),
        (np.zeros(4, np.float32), -1, 0, "token -1"),
        (np.zeros(4, np.float32), 0, 21, "top must be 0 to 20"),
        (np.zeros(4, np.float32), 0, -1, "top must be 0 to 20"),
        (np.zeros(4), 0, 0, "contiguous row of float32"),
        (np.zeros((2, 2), np.float32), 0, 0, "contiguous row of float32"),
        (np.zeros(8, np.float32)[::2], 0, 0, "contiguous row of float32"),
        (np.zeros(0, np.float32), 0, 0, "contiguous row of float32"),
    ],
)
def test_arguments(row: npt.NDArray[Any], token: int, top: int, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        logprobs(row, token, top=top)
