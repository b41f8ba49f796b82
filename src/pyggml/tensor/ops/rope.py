"""Rotary position embedding (Su et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from pyggml._ffi import ffi, lib
from pyggml.errors import ParameterError

from ..dtype import DType
from .core import (
    INT_MAX,
    arena_of,
    bad_shapes,
    make,
    need_contiguous,
    need_dtype,
    need_finite,
    need_int,
    need_rows,
    ptr_or_null,
)

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["RopeMode", "RopeParams", "rope", "rope_back", "rope_multi", "rope_multi_back"]


class RopeMode(IntEnum):
    """Which elements of a head are rotated together (``GGML_ROPE_TYPE_*``)."""

    NORMAL = 0
    """Neighbours: (0, 1), (2, 3), ... as in the RoFormer paper."""
    NEOX = 2
    """Halves: (0, n/2), (1, n/2 + 1), ... as in GPT-NeoX."""
    MROPE = 8
    """Halves, with sections of pairs for time, height, width, extra (Qwen2-VL). Only in :func:`rope_multi`."""
    VISION = 24
    """Sections for height and width, each with frequencies of its own. Only in :func:`rope_multi`."""
    IMROPE = 40
    """As MROPE, the sections interleaved (Qwen3-VL). Only in :func:`rope_multi`."""


@dataclass(frozen=True)
class RopeParams:
    """The method and its numbers, with the scalings ggml knows.

    ``freq_scale`` below 1 is linear interpolation (Chen et al. 2023), ``ext_factor`` above 0 YaRN (Peng et al. 2023)
    with ``n_ctx_orig`` the context of training and ``beta_fast``, ``beta_slow`` its ramp.
    """

    n_dims: int
    mode: RopeMode = RopeMode.NORMAL
    n_ctx_orig: int = 0
    freq_base: float = 10000.0
    freq_scale: float = 1.0
    ext_factor: float = 0.0
    attn_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    offset: int = 0
    """Elements of a head that stay as they are before the ``n_dims`` that are rotated."""

    def __post_init__(self) -> None:
        if self.n_dims <= 0 or self.n_dims % 2:
            raise ParameterError(f"rope: n_dims must be even and positive, got {self.n_dims}")
        if self.mode not in tuple(RopeMode):
            raise ParameterError(f"rope: mode must be one of {[m.value for m in RopeMode]}, got {self.mode}")
        need_int("rope", n_ctx_orig=self.n_ctx_orig)
        need_int("rope", n_dims=self.n_dims, offset=self.offset)
        need_finite(
            "rope",
            freq_base=self.freq_base,
            freq_scale=self.freq_scale,
            ext_factor=self.ext_factor,
            attn_factor=self.attn_factor,
            beta_fast=self.beta_fast,
            beta_slow=self.beta_slow,
        )
        if self.freq_base <= 0.0:
            raise ParameterError(f"rope: freq_base must be above 0, got {self.freq_base}")

    def numbers(self) -> tuple[float, ...]:
        """What follows the mode in ggml's signatures."""
        return (
            self.n_ctx_orig,
            self.freq_base,
            self.freq_scale,
            self.ext_factor,
            self.attn_factor,
            self.beta_fast,
            self.beta_slow,
        )


def _check(op: str, a: Tensor, positions: Tensor, params: RopeParams, factors: Tensor | None, per_token: int) -> None:
    if a.dtype not in (DType.F32, DType.F16):
        need_dtype(op, a, (DType.F32, DType.F16))
    need_dtype(op, positions, (DType.I32,))
    if positions.ne != (a.ne[2] * per_token, 1, 1, 1) or a.ne[2] * per_token > INT_MAX:
        bad_shapes(op, f"want a (d, n_head, n_tokens) and positions ({per_token} * n_tokens)", a, positions)
    if positions.ptr.nb[0] != 4:
        need_rows(op, positions)
    if params.n_dims + params.offset > a.ne[0]:
        raise ParameterError(
            f"{op}: n_dims {params.n_dims} + offset {params.offset} exceeds the head size {a.ne[0]} of {a!r}"
        )
    if params.offset and (params.offset % 2 or params.mode == RopeMode.VISION):
        raise ParameterError(f"{op}: the offset must be even, and 0 for VISION; got {params.offset}")
    if a.ne[0] % 2:
        bad_shapes(op, "the head size must be even", a, positions)
    if a.ptr.nb[0] != a.dtype.type_size:
        need_rows(op, a)
    if factors is not None:
        need_dtype(op, factors, (DType.F32,))
        need_rows(op, factors)
        need_contiguous(op, factors)
        if factors.ne[0] < params.n_dims // 2:
            bad_shapes(op, f"factors must hold n_dims / 2 = {params.n_dims // 2} numbers", a, factors)


def _single(op: str, function: Any, a: Tensor, positions: Tensor, params: RopeParams, factors: Tensor | None) -> Tensor:
    if params.mode not in (RopeMode.NORMAL, RopeMode.NEOX):
        raise ParameterError(f"{op}: mode {params.mode!r} has several positions per token; call rope_multi")
    _check(op, a, positions, params, factors, 1)
    arena = arena_of(a, positions, factors)
    ptr = function(
        arena.raw(),
        a.ptr,
        positions.ptr,
        ptr_or_null(factors),
        params.n_dims,
        int(params.mode),
        *params.numbers(),
    )
    if params.offset:
        lib.ggml_rope_set_offset(ptr, params.offset)
    return make(ptr, arena, a)


def rope(a: Tensor, positions: Tensor, *, params: RopeParams, factors: Tensor | None = None) -> Tensor:
    """Rotate heads by their token's position.

    Args:
        a: ``(d, n_head, n_tokens, s)`` float32 or float16, rows contiguous, d even.
        positions: ``(n_tokens)`` int32.
        params: the method and its numbers.
        factors: ``(n_dims / 2)`` float32, frequency divisors (llama 3, LongRoPE).
    """
    return _single("rope", lib.ggml_rope_ext, a, positions, params, factors)


def rope_back(grad: Tensor, positions: Tensor, *, params: RopeParams, factors: Tensor | None = None) -> Tensor:
    """The inverse rotation: the gradient of :func:`rope`. Arguments as there."""
    return _single("rope_back", lib.ggml_rope_ext_back, grad, positions, params, factors)


def _multi(
    op: str,
    function: Any,
    a: Tensor,
    positions: Tensor,
    params: RopeParams,
    sections: tuple[int, int, int, int],
    factors: Tensor | None,
) -> Tensor:
    if params.mode in (RopeMode.NORMAL, RopeMode.NEOX):
        raise ParameterError(f"{op}: mode {params.mode!r} has one position per token; call rope")
    _check(op, a, positions, params, factors, 4)
    if len(sections) != 4 or min(sections) < 0 or not any(sections[:3]) or sum(sections) > a.ne[0]:
        raise ParameterError(f"{op}: want four sections of pairs, some of the first three above 0, got {sections}")
    if params.mode == RopeMode.VISION and params.n_dims * 2 != a.ne[0]:
        raise ParameterError(f"{op}: VISION rotates all: n_dims must be half of {a.ne[0]}, got {params.n_dims}")
    arena = arena_of(a, positions, factors)
    ptr = function(
        arena.raw(),
        a.ptr,
        positions.ptr,
        ptr_or_null(factors),
        params.n_dims,
        ffi.new("int[4]", list(sections)),
        int(params.mode),
        *params.numbers(),
    )
    if params.offset:
        lib.ggml_rope_set_offset(ptr, params.offset)
    return make(ptr, arena, a)


def rope_multi(
    a: Tensor,
    positions: Tensor,
    *,
    params: RopeParams,
    sections: tuple[int, int, int, int],
    factors: Tensor | None = None,
) -> Tensor:
    """Rotate by several positions per token (M-RoPE, Wang et al. 2024, "Qwen2-VL").

    Args:
        a: ``(d, n_head, n_tokens, s)`` float32 or float16.
        positions: ``(4 * n_tokens)`` int32: all positions in time, then height, width, extra.
        params: the mode is MROPE, IMROPE or VISION (whose n_dims is d / 2).
        sections: how many pairs follow which position; usually their sum is n_dims / 2.
        factors: as in :func:`rope`.
    """
    return _multi("rope_multi", lib.ggml_rope_multi, a, positions, params, sections, factors)


def rope_multi_back(
    grad: Tensor,
    positions: Tensor,
    *,
    params: RopeParams,
    sections: tuple[int, int, int, int],
    factors: Tensor | None = None,
) -> Tensor:
    """The inverse rotation: the gradient of :func:`rope_multi`. Arguments as there."""
    return _multi("rope_multi_back", lib.ggml_rope_multi_back, grad, positions, params, sections, factors)
