"""Masks of caches of every size against the definition: the C code works in blocks of 256 cells."""

import numpy as np
import pytest

from pyggml._ffi import ffi, lib


def at(array: np.ndarray, kind: str) -> object:
    return ffi.cast(kind, array.ctypes.data)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("n_cells", [1, 255, 256, 257, 512, 700, 1024])
@pytest.mark.parametrize(("window", "chunk"), [(0, 0), (5, 0), (0, 7), (20, 11), (1 << 30, 0)])
def test_mask(n_cells: int, half: bool, window: int, chunk: int) -> None:
    rng = np.random.default_rng(n_cells + window + chunk)
    for causal in (None, rng.integers(0, 2, 6).astype(np.uint8)):
        pos = rng.integers(-1, 40, n_cells).astype(np.int32)
        # The first block has all sequences, the others a few: blocks without a sequence take a short way.
        seqs = rng.integers(0, 1 << 63, n_cells).astype(np.uint64) & rng.integers(0, 1 << 63, n_cells).astype(np.uint64)
        seqs[256:512] &= np.uint64(0b101)
        seqs[600:] &= np.uint64(1 << 62)
        row_pos = rng.integers(0, 40, 6).astype(np.int32)
        row_seq = np.array([0, 0, 2, 62, 1, 0], np.int32)
        out = np.full((8, n_cells), 7, np.float16 if half else np.float32)
        lib.pyggml_fill_mask(
            at(out, "void *"),
            half,
            n_cells,
            at(pos, "int32_t *"),
            at(seqs, "uint64_t *"),
            6,
            8,
            at(row_pos, "int32_t *"),
            at(row_seq, "int32_t *"),
            ffi.NULL if causal is None else at(causal, "uint8_t *"),
            window,
            chunk,
        )
        cell, row = pos[None, :].astype(np.int64), row_pos[:, None].astype(np.int64)
        seen = (cell >= 0) & ((seqs[None, :] >> row_seq[:, None].astype(np.uint64)) & np.uint64(1) == 1)
        seen &= (cell <= row) | (False if causal is None else causal[:, None] == 0)
        if window:
            seen &= cell > row - window
        if chunk:
            seen &= cell >= row - row % chunk
        want = np.full((8, n_cells), -np.inf)
        want[:6][seen] = 0
        np.testing.assert_array_equal(out.astype(np.float64), want)
