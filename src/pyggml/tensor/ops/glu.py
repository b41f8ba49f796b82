"""Gated linear units (Dauphin et al. 2016, Shazeer 2020): one half, put through a function, gates the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyggml._ffi import lib
from pyggml.errors import ParameterError

from ..dtype import DType
from .core import arena_of, bad_shapes, make, need_dtype, need_even_rows, need_finite, need_same_shape

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = [
    "geglu",
    "geglu_erf",
    "geglu_erf_split",
    "geglu_quick",
    "geglu_quick_split",
    "geglu_split",
    "reglu",
    "reglu_split",
    "swiglu",
    "swiglu_clamp",
    "swiglu_oai",
    "swiglu_split",
]

_HALF = frozenset((DType.F32, DType.F16))


def _need_limit(op: str, limit: float) -> None:
    need_finite(op, limit=limit)
    if limit < 0.0:
        raise ParameterError(f"{op}: limit must be 0 or more, got {limit}")


def _split(op: str, function: Any, gate: Tensor, up: Tensor) -> Tensor:
    if gate.dtype not in _HALF or up.dtype != gate.dtype:
        need_dtype(op, gate, _HALF)
        need_dtype(op, up, (gate.dtype,))
    need_same_shape(op, gate, up)
    need_even_rows(op, gate)
    need_even_rows(op, up)
    arena = arena_of(gate, up)
    return make(function(arena.raw(), gate.ptr, up.ptr), arena, gate)


def _joined(op: str, function: Any, a: Tensor) -> Tensor:
    need_dtype(op, a, _HALF)
    need_even_rows(op, a)
    if a.ne[0] % 2:
        bad_shapes(op, "the first dimension must be even: gate and value side by side", a)
    arena = arena_of(a)
    return make(function(arena.raw(), a.ptr), arena, a)


def reglu(a: Tensor, *, swapped: bool = False) -> Tensor:
    """``relu(gate) * value`` with both in one row ``(2n, ...)``: the gate first, or second when ``swapped``."""
    function = lib.ggml_reglu_swapped if swapped else lib.ggml_reglu
    return _joined("reglu", function, a)


def reglu_split(gate: Tensor, up: Tensor) -> Tensor:
    """``relu(gate) * up``."""
    return _split("reglu_split", lib.ggml_reglu_split, gate, up)


def geglu(a: Tensor, *, swapped: bool = False) -> Tensor:
    """``gelu(gate) * value`` with both in one row ``(2n, ...)``: the gate first, or second when ``swapped``."""
    function = lib.ggml_geglu_swapped if swapped else lib.ggml_geglu
    return _joined("geglu", function, a)


def geglu_split(gate: Tensor, up: Tensor) -> Tensor:
    """``gelu(gate) * up``."""
    return _split("geglu_split", lib.ggml_geglu_split, gate, up)


def swiglu(a: Tensor, *, swapped: bool = False) -> Tensor:
    """``silu(gate) * value`` with both in one row ``(2n, ...)``: the gate first, or second when ``swapped``."""
    function = lib.ggml_swiglu_swapped if swapped else lib.ggml_swiglu
    return _joined("swiglu", function, a)


def swiglu_split(gate: Tensor, up: Tensor) -> Tensor:
    """``silu(gate) * up``."""
    return _split("swiglu_split", lib.ggml_swiglu_split, gate, up)


def geglu_erf(a: Tensor, *, swapped: bool = False) -> Tensor:
    """``gelu_erf(gate) * value`` with both in one row ``(2n, ...)``: the gate first, or second when ``swapped``."""
    function = lib.ggml_geglu_erf_swapped if swapped else lib.ggml_geglu_erf
    return _joined("geglu_erf", function, a)


def geglu_erf_split(gate: Tensor, up: Tensor) -> Tensor:
    """``gelu_erf(gate) * up``."""
    return _split("geglu_erf_split", lib.ggml_geglu_erf_split, gate, up)


def geglu_quick(a: Tensor, *, swapped: bool = False) -> Tensor:
    """``gelu_quick(gate) * value`` with both in one row ``(2n, ...)``: the gate first, or second when ``swapped``."""
    function = lib.ggml_geglu_quick_swapped if swapped else lib.ggml_geglu_quick
    return _joined("geglu_quick", function, a)


def geglu_quick_split(gate: Tensor, up: Tensor) -> Tensor:
    """``gelu_quick(gate) * up``."""
    return _split("geglu_quick_split", lib.ggml_geglu_quick_split, gate, up)


def swiglu_oai(gate: Tensor, up: Tensor, *, alpha: float, limit: float) -> Tensor:
    """gpt-oss: ``g sigmoid(alpha g) (1 + u)``, ``g = min(gate, limit)``, ``u = clamp(up, -limit, limit)``; float32."""
    need_dtype("swiglu_oai", gate, (DType.F32,))
    need_finite("swiglu_oai", alpha=alpha)
    _need_limit("swiglu_oai", limit)

    def build(context: Any, a: Any, b: Any) -> Any:
        return lib.ggml_swiglu_oai(context, a, b, alpha, limit)

    return _split("swiglu_oai", build, gate, up)


def swiglu_clamp(gate: Tensor, up: Tensor, *, limit: float) -> Tensor:
    """``silu(min(gate, limit)) * clamp(up, -limit, limit)``; float32."""
    need_dtype("swiglu_clamp", gate, (DType.F32,))
    _need_limit("swiglu_clamp", limit)

    def build(context: Any, a: Any, b: Any) -> Any:
        return lib.ggml_swiglu_clamp(context, a, b, limit)

    return _split("swiglu_clamp", build, gate, up)
