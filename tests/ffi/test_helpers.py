"""The C helpers against numpy."""

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from pyggml._ffi import ffi, lib


def at(array: npt.NDArray[Any], kind: str) -> Any:
    return ffi.cast(kind, array.ctypes.data)


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
