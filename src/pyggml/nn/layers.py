"""Layers that hold weights, a few lines each. Adapters of the graph (:mod:`pyggml.lora`) are applied here."""

from pyggml.lora import overlay_of
from pyggml.tensor import Tensor, ops
from pyggml.weights import Scope, Use

__all__ = ["Embedding", "LayerNorm", "Linear", "RMSNorm"]


class Linear:
    """``x W^T + b``: ``(n_in, n_tokens) -> (n_out, n_tokens)``. The bias is used when the file has one."""

    def __init__(self, scope: Scope, name: str, n_in: int, n_out: int) -> None:
        self.name = f"{scope.prefix}{name}.weight"
        self.weight = scope.get(f"{name}.weight", n_in, n_out, use=Use.MUL_MAT)
        self.bias = scope.find(f"{name}.bias", n_out)

    def __call__(self, x: Tensor) -> Tensor:
        y = ops.mul_mat(self.weight, x)
        if (overlay := overlay_of(x)) is not None:
            y = overlay.linear(self.name, x, y)
        return y if self.bias is None else ops.add(y, self.bias)


class Embedding:
    """Rows by id: ``(n_tokens) int32 -> (n_embd, n_tokens)``."""

    def __init__(self, scope: Scope, name: str, n_embd: int, n_rows: int) -> None:
        self.name = f"{scope.prefix}{name}.weight"
        self.weight = scope.get(f"{name}.weight", n_embd, n_rows, use=Use.GET_ROWS)

    def __call__(self, ids: Tensor) -> Tensor:
        y = ops.get_rows(self.weight, ids)
        return y if (overlay := overlay_of(ids)) is None else overlay.embedding(self.name, ids, y)


class RMSNorm:
    """Root mean square normalisation with weight (Zhang and Sennrich 2019), over the first dimension."""

    def __init__(self, scope: Scope, name: str, n: int, *, eps: float) -> None:
        self.weight = scope.get(f"{name}.weight", n)
        self.eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        return ops.mul(ops.rms_norm(x, eps=self.eps), self.weight)


class LayerNorm:
    """Layer normalisation with weight and bias (Ba et al. 2016), over the first dimension."""

    def __init__(self, scope: Scope, name: str, n: int, *, eps: float) -> None:
        self.weight = scope.get(f"{name}.weight", n)
        self.bias = scope.find(f"{name}.bias", n)
        self.eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        y = ops.mul(ops.norm(x, eps=self.eps), self.weight)
        return y if self.bias is None else ops.add(y, self.bias)
