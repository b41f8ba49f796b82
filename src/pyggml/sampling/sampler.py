"""From a row of logits to a token: one call into C per token, ``src/pyggml/_ffi/sampler.c``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyggml._ffi import ffi, lib
from pyggml.errors import ComputeError, OutOfMemoryError, ParameterError

from .breakers import DryBreakers
from .params import SamplingParams

__all__ = ["Sampler", "TokenLogprobs", "logprobs"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Doubles = npt.NDArray[np.float64]

F32, I32 = np.dtype(np.float32), np.dtype(np.int32)
MOST_LOGPROBS = 20
WORD = (1 << 64) - 1
LARGEST_MEMORY = 1 << 28  # tokens; no context is longer


class Sampler:
    """One sequence's sampler: the options, the random generator and the recent tokens.

    The random numbers are PCG64's (O'Neill 2014): with a seed s, those of ``Generator(PCG64(s)).random()`` in
    numpy: one per token, and one more before it when XTC is on and two or more tokens are left. Runs with equal seeds
    repeat, on this machine and on others.

    Penalties, DRY and dynamic temperature act together with Mirostat, too; llama.cpp leaves them out there.

    An object is for one thread at a time; the GIL is free while it computes.
    """

    def __init__(self, params: SamplingParams, *, n_ctx: int = 4096, breakers: DryBreakers | None = None) -> None:
        """
        Args:
            params: the options.
            n_ctx: what ``repeat_last_n=-1`` and ``dry_penalty_last_n=-1`` stand for.
            breakers: ``params.dry_sequence_breakers`` in tokens, see :meth:`DryBreakers.from_texts`; looked at only
                when DRY is on, and may be left out when there are no such texts.

        Raises:
            ParameterError: DRY is on and has texts, but ``breakers`` are missing.
        """
        if params.dries and params.dry_sequence_breakers and breakers is None:
            raise ParameterError(
                "dry_sequence_breakers are texts, and the sampler knows no vocabulary: pass "
                "breakers=DryBreakers.from_texts(...), or dry_sequence_breakers=()"
            )
        self.params = params
        self._breakers = breakers if params.dries else None
        self._remembers = params.penalizes or params.dries
        biases = dict(params.logit_bias)  # sorted by SamplingParams
        self._bias_ids: Ints = np.array(list(biases), np.int32)
        self._biases: Floats = np.array(list(biases.values()), np.float32)
        self._n_vocab = -1  # of the last row
        options = _options(params, n_ctx, self._bias_ids, self._biases, self._breakers)
        self._state = _owned(lib.pyggml_sampler_new(options))

    def clone(self) -> Sampler:
        """A sampler in the same state: it continues with the same tokens remembered and the same random numbers."""
        copy = Sampler.__new__(Sampler)
        copy.__dict__.update(self.__dict__)
        copy._state = _owned(lib.pyggml_sampler_clone(self._state))
        return copy

    def accept(self, tokens: Iterable[int]) -> None:
        """Take note of tokens of the prompt or of the answer, for the penalties and DRY.

        Raises:
            ParameterError: something is no 32-bit integer.
        """
        if not self._remembers:
            return
        try:
            if isinstance(tokens, tuple) and len(tokens) == 1:
                lib.pyggml_sampler_accept_one(self._state, tokens[0])
                return
            ids = np.ascontiguousarray(tokens if isinstance(tokens, np.ndarray) else list(tokens), I32)
        except (OverflowError, TypeError, ValueError) as error:
            raise ParameterError(f"tokens must be 32-bit integers: {error}") from error
        lib.pyggml_sampler_accept(self._state, ffi.from_buffer("int32_t[]", ids), ids.size)

    def sample(self, logits: Floats, *, mask: Ints | None = None) -> int:
        """Choose a token; the caller accepts it afterwards.

        Args:
            logits: ``(n_vocab)`` float32, contiguous; only read.
            mask: ``((n_vocab + 31) // 32)`` int32, contiguous: bit i % 32 of word i // 32 allows token i, as llguidance
                fills it. None: all are allowed.

        Raises:
            ComputeError: an allowed logit is NaN, or the largest of them is infinite.
            ParameterError: the arguments are not of this form, ``logit_bias`` names a token that the row has not, or
                mask and bias forbid every token.
        """
        row, words = self._arguments(logits, mask)
        token: int = lib.pyggml_sampler_sample(self._state, row, logits.size, words)
        if token < 0:
            raise _error(token)
        return token

    def distribution(self, logits: Floats, *, mask: Ints | None = None) -> tuple[Ints, Doubles]:
        """The tokens that the next :meth:`sample` would draw from, and their probabilities, best first.

        Nothing that :meth:`sample` depends on changes. Whether XTC acts, if it is on, is what the next random number
        says.

        Args:
            logits: as for :meth:`sample`.
            mask: as for :meth:`sample`.

        Raises:
            ComputeError: as for :meth:`sample`.
            ParameterError: as for :meth:`sample`.
        """
        row, words = self._arguments(logits, mask)
        ids, probs = np.empty(logits.size, np.int32), np.empty(logits.size, np.float64)
        n = lib.pyggml_sampler_distribution(
            self._state, row, logits.size, words, ffi.from_buffer("int32_t[]", ids), ffi.from_buffer("double[]", probs)
        )
        if n < 0:
            raise _error(n)
        order = np.lexsort((ids[:n], -probs[:n]))
        return ids[order], probs[order]

    def _arguments(self, logits: Floats, mask: Ints | None) -> tuple[Any, Any]:
        """Both arrays for C, checked."""
        row = _row(logits)
        n = logits.size
        if n != self._n_vocab:
            if self._bias_ids.size and self._bias_ids[-1] >= n:
                raise ParameterError(f"logit_bias names token {self._bias_ids[-1]}; the model has {n}")
            self._n_vocab = n
        if mask is None:
            return row, ffi.NULL
        if (mask.dtype is not I32 and mask.dtype != I32) or mask.shape != ((n + 31) // 32,):
            raise ParameterError(
                f"the mask for {n} tokens must be {(n + 31) // 32} words of int32, got {mask.dtype} {mask.shape}"
            )
        if not mask.flags.c_contiguous:
            raise ParameterError("the mask must be contiguous")
        return row, ffi.from_buffer("int32_t[]", mask)


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural logarithms of probabilities, before any sampling: of the token chosen, and of the most likely ones.

    Attributes:
        token: the id asked about.
        logprob: its logarithm; -inf for a logit of -inf.
        top: ids and logarithms of the most likely tokens, best first, ties by lower id.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def logprobs(logits: Floats, token: int, *, top: int = 0) -> TokenLogprobs:
    """Logarithms of the softmax of raw logits, computed in double precision.

    Args:
        logits: ``(n_vocab)`` float32, contiguous; only read.
        token: the id to report.
        top: how many of the most likely tokens to report, 0 to 20; those with -inf are left out.

    Raises:
        ComputeError: a logit is NaN, or the largest is infinite.
        ParameterError: the arguments are out of range, or this is no row of logits.
    """
    row = _row(logits)
    if not 0 <= token < logits.size:
        raise ParameterError(f"token {token} is outside of the row of {logits.size} logits")
    if not 0 <= top <= MOST_LOGPROBS:
        raise ParameterError(f"top must be 0 to {MOST_LOGPROBS}, got {top}")
    chosen, ids, values = ffi.new("double *"), ffi.new("int32_t[]", top), ffi.new("double[]", top)
    n = lib.pyggml_logprobs(row, logits.size, token, top, chosen, ids, values)
    if n < 0:
        raise _error(n)
    return TokenLogprobs(token, chosen[0], tuple((ids[i], values[i]) for i in range(n)))


def _row(logits: Floats) -> Any:
    """A row of logits for C; a view, nothing is copied."""
    if (logits.dtype is not F32 and logits.dtype != F32) or logits.ndim != 1 or not logits.size:
        raise _no_row(logits)
    if not logits.flags.c_contiguous:
        raise _no_row(logits)
    return ffi.from_buffer("float[]", logits)


def _no_row(logits: Floats) -> ParameterError:
    return ParameterError(
        f"logits must be a contiguous row of float32, got {logits.dtype} of shape {logits.shape} "
        f"and strides {logits.strides}"
    )


def _owned(state: Any) -> Any:
    if state == ffi.NULL:
        raise OutOfMemoryError("no memory for a sampler: lower repeat_last_n or dry_penalty_last_n")
    return ffi.gc(state, lib.pyggml_sampler_free)


def _options(params: SamplingParams, n_ctx: int, ids: Ints, biases: Floats, breakers: DryBreakers | None) -> Any:
    """The options in C. The arrays must be kept by the caller."""
    options = ffi.new("struct pyggml_sampling *")
    for name, _ in ffi.typeof("struct pyggml_sampling").fields:
        if hasattr(params, name):
            setattr(options, name, getattr(params, name))
    for name in ("repeat_last_n", "dry_penalty_last_n"):
        last_n = n_ctx if getattr(params, name) < 0 else getattr(params, name)
        setattr(options, name, min(last_n, LARGEST_MEMORY))
    options.bias_ids = ffi.from_buffer("int32_t[]", ids)
    options.biases = ffi.from_buffer("float[]", biases)
    options.n_bias = ids.size
    if breakers is not None:
        heads, tail_at, tails = (ffi.from_buffer("int32_t[]", array) for array in breakers.arrays)
        options.heads, options.tail_at, options.tails = heads, tail_at, tails
        options.n_breakers = len(breakers.sequences)
    generator: Any = np.random.PCG64(params.seed).state
    for name, field in (("state", "state"), ("inc", "increment")):
        number = int(generator["state"][name])
        setattr(options, field, [number >> 64, number & WORD])
    return options


def _error(code: int) -> ComputeError | OutOfMemoryError | ParameterError:
    cause = "the model file is damaged, or a kernel of this device is wrong"
    if code == lib.PYGGML_SAMPLE_NAN:
        return ComputeError(f"the logits hold NaN: {cause}")
    if code == lib.PYGGML_SAMPLE_INFINITE:
        return ComputeError(f"the largest logit is infinite: {cause}")
    if code == lib.PYGGML_SAMPLE_NOTHING:
        return ParameterError("mask and logit_bias forbid every token that the model allows")
    return OutOfMemoryError("no memory to sample from the logits")
