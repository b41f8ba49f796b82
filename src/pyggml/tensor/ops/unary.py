"""Functions of one tensor, element by element."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyggml._ffi import lib

from ..dtype import DType
from .core import FLOATS, arena_of, make, need_dtype, need_finite, need_packed, need_rows, need_same_shape

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = [
    "abs",
    "ceil",
    "cos",
    "elu",
    "exp",
    "expm1",
    "floor",
    "gelu",
    "gelu_erf",
    "gelu_quick",
    "hardsigmoid",
    "hardswish",
    "leaky_relu",
    "log",
    "neg",
    "relu",
    "round",
    "sgn",
    "sigmoid",
    "silu",
    "silu_back",
    "sin",
    "softplus",
    "sqr",
    "sqrt",
    "step",
    "tanh",
    "trunc",
    "xielu",
]

_HALF = frozenset((DType.F32, DType.F16))  # ggml has tables and vector code only for these


def _unary(op: str, function: Any, a: Tensor, allowed: frozenset[DType] = FLOATS) -> Tensor:
    if a.dtype not in allowed:
        need_dtype(op, a, allowed)
    if a.ptr.nb[0] != a.dtype.type_size:
        need_rows(op, a)
    arena = arena_of(a)
    return make(function(arena.raw(), a.ptr), arena, a)


def neg(a: Tensor) -> Tensor:
    """``-a``."""
    return _unary("neg", lib.ggml_neg, a)


def abs(a: Tensor) -> Tensor:
    """``|a|``."""
    return _unary("abs", lib.ggml_abs, a)


def sgn(a: Tensor) -> Tensor:
    """-1, 0 or 1."""
    return _unary("sgn", lib.ggml_sgn, a)


def step(a: Tensor) -> Tensor:
    """1 where ``a`` is above 0, else 0."""
    return _unary("step", lib.ggml_step, a)


def sqr(a: Tensor) -> Tensor:
    """``a * a``."""
    return _unary("sqr", lib.ggml_sqr, a)


def sqrt(a: Tensor) -> Tensor:
    """Square root; NaN below 0."""
    return _unary("sqrt", lib.ggml_sqrt, a)


def log(a: Tensor) -> Tensor:
    """Natural logarithm; NaN below 0."""
    return _unary("log", lib.ggml_log, a)


def exp(a: Tensor) -> Tensor:
    """``e ** a``."""
    return _unary("exp", lib.ggml_exp, a)


def expm1(a: Tensor) -> Tensor:
    """``e ** a - 1``."""
    return _unary("expm1", lib.ggml_expm1, a)


def sin(a: Tensor) -> Tensor:
    """Sine of radians."""
    return _unary("sin", lib.ggml_sin, a)


def cos(a: Tensor) -> Tensor:
    """Cosine of radians."""
    return _unary("cos", lib.ggml_cos, a)


def floor(a: Tensor) -> Tensor:
    """The largest integer not above."""
    return _unary("floor", lib.ggml_floor, a)


def ceil(a: Tensor) -> Tensor:
    """The smallest integer not below."""
    return _unary("ceil", lib.ggml_ceil, a)


def round(a: Tensor) -> Tensor:
    """The nearest integer, halves away from zero."""
    return _unary("round", lib.ggml_round, a)


def trunc(a: Tensor) -> Tensor:
    """The integer part."""
    return _unary("trunc", lib.ggml_trunc, a)


def relu(a: Tensor) -> Tensor:
    """``max(a, 0)``."""
    return _unary("relu", lib.ggml_relu, a)


def elu(a: Tensor) -> Tensor:
    """``a`` above 0, ``e ** a - 1`` below (Clevert et al. 2015)."""
    return _unary("elu", lib.ggml_elu, a)


def tanh(a: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return _unary("tanh", lib.ggml_tanh, a)


def sigmoid(a: Tensor) -> Tensor:
    """``1 / (1 + exp(-a))``."""
    return _unary("sigmoid", lib.ggml_sigmoid, a)


def softplus(a: Tensor) -> Tensor:
    """``log(1 + exp(a))``."""
    return _unary("softplus", lib.ggml_softplus, a)


def hardsigmoid(a: Tensor) -> Tensor:
    """``min(max((a + 3) / 6, 0), 1)`` (Howard et al. 2019)."""
    return _unary("hardsigmoid", lib.ggml_hardsigmoid, a)


def hardswish(a: Tensor) -> Tensor:
    """``a * hardsigmoid(a)`` (Howard et al. 2019)."""
    return _unary("hardswish", lib.ggml_hardswish, a)


def silu(a: Tensor) -> Tensor:
    """``a * sigmoid(a)`` (Elfwing et al. 2017); float32 or float16."""
    return _unary("silu", lib.ggml_silu, a, _HALF)


def gelu(a: Tensor) -> Tensor:
    """GELU by its tanh approximation (Hendrycks and Gimpel 2016); float32 or float16."""
    return _unary("gelu", lib.ggml_gelu, a, _HALF)


def gelu_erf(a: Tensor) -> Tensor:
    """GELU by the error function (Hendrycks and Gimpel 2016); float32 or float16."""
    return _unary("gelu_erf", lib.ggml_gelu_erf, a, _HALF)


def gelu_quick(a: Tensor) -> Tensor:
    """``a * sigmoid(1.702 a)`` (Hendrycks and Gimpel 2016); float32 or float16."""
    return _unary("gelu_quick", lib.ggml_gelu_quick, a, _HALF)


def leaky_relu(a: Tensor, *, slope: float) -> Tensor:
    """``a`` above 0, ``slope * a`` below; float32 or float16, contiguous."""
    need_dtype("leaky_relu", a, _HALF)
    need_packed("leaky_relu", a)
    need_finite("leaky_relu", slope=slope)
    arena = arena_of(a)
    return make(lib.ggml_leaky_relu(arena.raw(), a.ptr, slope, False), arena, a)


def xielu(a: Tensor, *, alpha_n: float, alpha_p: float, beta: float, eps: float) -> Tensor:
    """The expanded integral of ELU (Huang 2024).

    Above 0: ``softplus(alpha_p) a^2 + beta a``.
    Below: ``(expm1(min(a, eps)) - a) (beta + softplus(alpha_n)) + beta a``.
    """
    need_dtype("xielu", a, FLOATS)
    need_packed("xielu", a)
    need_finite("xielu", alpha_n=alpha_n, alpha_p=alpha_p, beta=beta, eps=eps)
    arena = arena_of(a)
    return make(lib.ggml_xielu(arena.raw(), a.ptr, alpha_n, alpha_p, beta, eps), arena, a)


def silu_back(grad: Tensor, a: Tensor) -> Tensor:
    """The gradient at ``a`` of ``silu(a)``, given that of the result; float32 or float16, contiguous."""
    need_dtype("silu_back", grad, _HALF)
    need_dtype("silu_back", a, (grad.dtype,))
    need_same_shape("silu_back", grad, a)
    for tensor in (grad, a):
        need_packed("silu_back", tensor)
    arena = arena_of(grad, a)
    return make(lib.ggml_silu_back(arena.raw(), grad.ptr, a.ptr), arena, grad)
