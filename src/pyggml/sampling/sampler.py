"""From a row of logits to a token: penalties, top-k, top-p, min-p, temperature, draw, in llama.cpp's order.

The passes over the whole vocabulary run in C; what is left after top-k is a handful of numbers.
"""

import math
from collections import deque
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from pyggml._ffi import ffi, lib
from pyggml.errors import ComputeError, ParameterError

from .params import SamplingParams

__all__ = ["Sampler"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

COLDEST = 1e-30  # anything below would overflow and makes no difference
FIRST_GUESS = 1024  # candidates looked at first when only top_p cuts


class Sampler:
    """One sequence's sampler: the options, the random generator and the recent tokens."""

    def __init__(self, params: SamplingParams, *, n_ctx: int = 4096) -> None:
        """
        Args:
            params: the options.
            n_ctx: what ``repeat_last_n=-1`` stands for.
        """
        self.params = params
        last_n = n_ctx if params.repeat_last_n < 0 else params.repeat_last_n
        self._recent: deque[int] = deque(maxlen=last_n)
        self._random = np.random.Generator(np.random.PCG64(params.seed))

    def accept(self, tokens: Iterable[int]) -> None:
        """Take note of tokens of the prompt or of the answer, for the penalties."""
        self._recent.extend(tokens)

    def sample(self, logits: Floats) -> int:
        """Choose a token; the caller accepts it afterwards.

        Args:
            logits: ``(n_vocab)`` float32, contiguous; unchanged on return.

        Raises:
            ComputeError: the logits hold NaN, or no finite largest value.
            ParameterError: they are no row of float32.
        """
        if logits.dtype != np.float32 or logits.ndim != 1 or not logits.size or not logits.flags.c_contiguous:
            raise ParameterError(
                f"logits must be a contiguous row of float32, got {logits.dtype} of shape {logits.shape}"
            )
        if not (self.params.penalizes and self._recent):
            return self._choose(logits)
        ids, counts = np.unique(np.fromiter(self._recent, np.int32), return_counts=True)
        known = (ids >= 0) & (ids < logits.size)
        ids, counts = ids[known], counts[known]
        if not logits.flags.writeable:
            logits = logits.copy()
        saved = logits[ids]
        self._penalize(logits, ids, counts.astype(np.int32))
        try:
            return self._choose(logits)
        finally:
            logits[ids] = saved

    def _penalize(self, logits: Floats, ids: Ints, counts: Ints) -> None:
        p = self.params
        lib.pyggml_penalize(
            _floats(logits),
            logits.size,
            _ints(ids),
            _ints(counts),
            ids.size,
            p.repeat_penalty,
            p.frequency_penalty,
            p.presence_penalty,
        )

    def _choose(self, logits: Floats) -> int:
        if self.params.temperature <= 0.0:
            best = int(lib.pyggml_argmax(_floats(logits), logits.size))
            if best < 0:
                raise _nan()
            return best
        ids, values = self._candidates(logits)
        exact = values.astype(np.float64)
        weights = np.exp((exact - exact.max()) / max(self.params.temperature, COLDEST))
        cumulative = np.cumsum(weights)
        drawn = self._random.random() * cumulative[-1]
        at = min(int(np.searchsorted(cumulative, drawn, side="right")), ids.size - 1)
        return int(ids[at])

    def _candidates(self, logits: Floats) -> tuple[Ints, Floats]:
        """The tokens left after top-k, top-p and min-p: each of the three keeps a head of the sorted list."""
        p, n = self.params, logits.size
        if 0 < p.top_k < n:
            ids, values = _top(logits, p.top_k)
            return self._cut(ids, values, _log_sum_exp(values))
        total = _log_sum_exp(logits)
        if p.min_p > 0.0:
            kept = np.flatnonzero(logits >= logits.max() + math.log(p.min_p)).astype(np.int32)
            order = np.argsort(-logits[kept], kind="stable")
            return self._cut(kept[order], logits[kept[order]], total)
        if p.top_p >= 1.0:
            return np.arange(n, dtype=np.int32), logits
        guess = FIRST_GUESS
        while True:  # the nucleus is nearly always small: sort no more than needed
            ids, values = _top(logits, min(guess, n))
            if guess >= n or float(np.exp(values.astype(np.float64) - total).sum()) >= p.top_p:
                return self._cut(ids, values, total)
            guess *= 8

    def _cut(self, ids: Ints, values: Floats, total: float) -> tuple[Ints, Floats]:
        p, keep = self.params, ids.size
        if p.top_p < 1.0:
            cumulative = np.cumsum(np.exp(values.astype(np.float64) - total))
            keep = int(np.searchsorted(cumulative, p.top_p, side="left")) + 1
        if p.min_p > 0.0:
            keep = min(keep, int(np.count_nonzero(values >= values[0] + math.log(p.min_p))))
        keep = max(1, min(keep, ids.size))
        return ids[:keep], values[:keep]


def _top(logits: Floats, k: int) -> tuple[Ints, Floats]:
    ids, values = np.empty(k, np.int32), np.empty(k, np.float32)
    if lib.pyggml_top_k(_floats(logits), logits.size, k, _ints(ids), _floats(values)) < 0:
        raise _nan()
    return ids, values


def _log_sum_exp(values: Floats) -> float:
    total = float(lib.pyggml_log_sum_exp(_floats(values), values.size))
    if math.isnan(total):
        raise _nan()
    if math.isinf(total):
        raise _not_finite()
    return total


def _not_finite() -> ComputeError:
    return ComputeError("the largest logit is infinite: the model file is damaged, or a kernel of this device is wrong")


def _nan() -> ComputeError:
    return ComputeError("the logits hold NaN: the model file is damaged, or a kernel of this device is wrong")


def _floats(array: Floats) -> object:
    return ffi.cast("float *", array.ctypes.data)


def _ints(array: Ints) -> object:
    return ffi.cast("int32_t *", array.ctypes.data)
