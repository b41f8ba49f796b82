"""The C helpers against numpy."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pyggml._ffi import ffi, lib

Floats = npt.NDArray[np.float32]
numbers = st.floats(-50, 50, width=32)
logits = arrays(np.float32, st.integers(1, 60), elements=numbers)
few_values = arrays(np.float32, st.integers(1, 60), elements=st.sampled_from([0.0, 1.0, 2.0]))


def at(array: npt.NDArray[Any], kind: str) -> Any:
    return ffi.cast(kind, array.ctypes.data)


def top_k(x: Floats, k: int) -> tuple[int, list[int], list[float]]:
    ids, values = np.full(max(k, 1), -7, np.int32), np.zeros(max(k, 1), np.float32)
    n = lib.pyggml_top_k(at(x, "float *"), len(x), k, at(ids, "int32_t *"), at(values, "float *"))
    return n, ids[: max(n, 0)].tolist(), values[: max(n, 0)].tolist()


@given(x=logits | few_values)
def test_argmax_takes_the_first_of_equals(x: Floats) -> None:
    assert lib.pyggml_argmax(at(x, "float *"), len(x)) == int(np.argmax(x))


@given(x=logits | few_values, k=st.integers(0, 70))
def test_top_k_is_sorted_and_stable(x: Floats, k: int) -> None:
    n, ids, values = top_k(x, k)
    want = sorted(range(len(x)), key=lambda i: (-x[i], i))[:k]
    assert n == min(k, len(x))
    assert ids == want
    assert values == [float(x[i]) for i in want]


@given(x=logits, at_index=st.integers(0, 59), k=st.integers(1, 5))
def test_nan_is_reported(x: Floats, at_index: int, k: int) -> None:
    x[at_index % len(x)] = np.nan
    assert lib.pyggml_argmax(at(x, "float *"), len(x)) == -1
    assert top_k(x, k)[0] == -1


def test_of_nothing() -> None:
    empty = np.zeros(0, np.float32)
    assert lib.pyggml_argmax(at(empty, "float *"), 0) == -1
    assert top_k(empty, 3)[0] == 0
    assert lib.pyggml_log_sum_exp(at(empty, "float *"), 0) == -np.inf


@given(x=logits)
def test_log_sum_exp(x: Floats) -> None:
    big = x.astype(np.float64)
    want = big.max() + np.log(np.exp(big - big.max()).sum())
    assert lib.pyggml_log_sum_exp(at(x, "float *"), len(x)) == pytest.approx(want, rel=1e-5, abs=1e-5)


def test_log_sum_exp_does_not_overflow() -> None:
    x = np.array([1e30, -1e30], np.float32)
    assert lib.pyggml_log_sum_exp(at(x, "float *"), 2) == pytest.approx(1e30)
    gone = np.full(3, -np.inf, np.float32)
    assert lib.pyggml_log_sum_exp(at(gone, "float *"), 3) == -np.inf


@given(
    x=logits,
    seen=st.dictionaries(st.integers(-2, 70), st.integers(0, 5), max_size=10),
    repeat=st.floats(0.5, 2, width=32),
    frequency=st.floats(-1, 1, width=32),
    presence=st.floats(-1, 1, width=32),
)
def test_penalize(x: Floats, seen: dict[int, int], repeat: float, frequency: float, presence: float) -> None:
    want = x.astype(np.float64)
    for i, count in seen.items():
        if 0 <= i < len(x):
            want[i] = want[i] / repeat if want[i] > 0 else want[i] * repeat
            want[i] -= count * frequency + (presence if count else 0)
    ids = np.array(list(seen), np.int32)
    counts = np.array(list(seen.values()), np.int32)
    args = (at(ids, "int32_t *"), at(counts, "int32_t *"), len(seen), repeat, frequency, presence)
    lib.pyggml_penalize(at(x, "float *"), len(x), *args)
    np.testing.assert_allclose(x, want, rtol=1e-4, atol=1e-4)


@given(
    cells=st.lists(st.tuples(st.integers(-1, 12), st.integers(0, 7)), min_size=1, max_size=12),
    rows=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2), st.booleans()), min_size=1, max_size=5),
    pad=st.integers(0, 3),
    window=st.sampled_from([0, 1, 3]),
    chunk=st.sampled_from([0, 2, 5]),
    half=st.booleans(),
    all_causal=st.booleans(),
)
def test_fill_mask(
    cells: list[tuple[int, int]],
    rows: list[tuple[int, int, bool]],
    pad: int,
    window: int,
    chunk: int,
    half: bool,
    all_causal: bool,
) -> None:
    cell_pos = np.array([c[0] for c in cells], np.int32)
    cell_seq = np.array([c[1] for c in cells], np.uint64)
    pos, seq = np.array([r[0] for r in rows], np.int32), np.array([r[1] for r in rows], np.int32)
    causal = np.array([r[2] for r in rows], np.uint8)
    out = np.full((len(rows) + pad, len(cells)), 7, np.float16 if half else np.float32)
    lib.pyggml_fill_mask(
        at(out, "void *"),
        half,
        len(cells),
        at(cell_pos, "int32_t *"),
        at(cell_seq, "uint64_t *"),
        len(rows),
        len(rows) + pad,
        at(pos, "int32_t *"),
        at(seq, "int32_t *"),
        ffi.NULL if all_causal else at(causal, "uint8_t *"),
        window,
        chunk,
    )
    want = np.full(out.shape, -np.inf)
    for i, (p, q, only_before) in enumerate(rows):
        for j, (c, members) in enumerate(cells):
            seen = c >= 0 and members >> q & 1
            seen = seen and (c <= p or not (all_causal or only_before))
            seen = seen and (not window or c > p - window) and (not chunk or c >= p - p % chunk)
            if seen:
                want[i, j] = 0
    np.testing.assert_array_equal(out.astype(np.float64), want)
