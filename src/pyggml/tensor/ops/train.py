"""Loss and optimizer steps. Gradients are built by hand from the ``_back`` operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyggml._ffi import lib
from pyggml.errors import ParameterError

from ..dtype import DType
from .core import arena_of, bad_shapes, make, need_plain, need_same_shape

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["cross_entropy_loss", "cross_entropy_loss_back", "opt_step_adamw", "opt_step_sgd"]

_F32 = (DType.F32,)


def cross_entropy_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """``-sum(labels * log_softmax(logits)) / n_rows``: ``(1)``; both ``(n_classes, ...)`` float32, contiguous."""
    need_plain("cross_entropy_loss", _F32, logits, labels)
    need_same_shape("cross_entropy_loss", logits, labels)
    arena = arena_of(logits, labels)
    return make(lib.ggml_cross_entropy_loss(arena.raw(), logits.ptr, labels.ptr), arena, logits)


def cross_entropy_loss_back(grad: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """The gradient of :func:`cross_entropy_loss` at the logits; ``grad`` ``(1)`` is that of the loss."""
    need_plain("cross_entropy_loss_back", _F32, grad, logits, labels)
    need_same_shape("cross_entropy_loss_back", logits, labels)
    if grad.ne != (1, 1, 1, 1):
        bad_shapes("cross_entropy_loss_back", "the gradient of the loss is one number", grad, logits, labels)
    arena = arena_of(grad, logits, labels)
    ptr = lib.ggml_cross_entropy_loss_back(arena.raw(), grad.ptr, logits.ptr, labels.ptr)
    return make(ptr, arena, grad)


def _need_parameter(op: str, a: Tensor) -> None:
    """ggml wants the flag of a trainable parameter; only a leaf with memory of its own can be one."""
    if a.ptr.op != lib.GGML_OP_NONE or not a.is_allocated:
        raise ParameterError(f"{op}: {a!r} must be a tensor with data, not a result")
    a.ptr.flags |= lib.GGML_TENSOR_FLAG_PARAM


def opt_step_adamw(a: Tensor, grad: Tensor, m: Tensor, v: Tensor, params: Tensor) -> Tensor:
    """One step of AdamW (Loshchilov and Hutter 2017) on ``a``, ``m`` and ``v`` in place; the result is a view of ``a``.

    ``params`` ``(7)`` float32: learning rate, beta1, beta2, eps, weight decay, and ``1 / (1 - beta^t)`` of both betas.
    """
    need_plain("opt_step_adamw", _F32, a, grad, m, v, params)
    need_same_shape("opt_step_adamw", a, grad, m, v)
    if params.n_elements != 7:
        bad_shapes("opt_step_adamw", "want seven parameters", a, params)
    arena = arena_of(grad, params, a, m, v)
    _need_parameter("opt_step_adamw", a)
    ptr = lib.ggml_opt_step_adamw(arena.raw(), a.ptr, grad.ptr, m.ptr, v.ptr, params.ptr)
    return make(ptr, arena, grad)


def opt_step_sgd(a: Tensor, grad: Tensor, params: Tensor) -> Tensor:
    """``a (1 - lr decay) - lr grad`` in place; ``params`` ``(2)`` float32: learning rate, weight decay."""
    need_plain("opt_step_sgd", _F32, a, grad, params)
    need_same_shape("opt_step_sgd", a, grad)
    if params.n_elements != 2:
        bad_shapes("opt_step_sgd", "want two parameters", a, params)
    arena = arena_of(grad, params, a)
    _need_parameter("opt_step_sgd", a)
    return make(lib.ggml_opt_step_sgd(arena.raw(), a.ptr, grad.ptr, params.ptr), arena, grad)
