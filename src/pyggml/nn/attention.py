"""Scaled dot-product attention over what a cache holds."""

from pyggml.kvcache import CacheView
from pyggml.tensor import Tensor, ops

__all__ = ["attention"]


def attention(
    q: Tensor, k: Tensor, v: Tensor, cache: CacheView, *, layer: int, scale: float, logit_softcap: float = 0.0
) -> Tensor:
    """Store ``k`` and ``v``, then let ``q`` look at everything its mask allows (Vaswani et al. 2017).

    Args:
        q: ``(d_k, n_head, n_tokens)``.
        k: ``(d_k, n_head_kv, n_tokens)``.
        v: ``(d_v, n_head_kv, n_tokens)``.
        cache: this graph's view of the cache.
        layer: index of the layer.
        scale: usually ``1 / sqrt(d_k)``.
        logit_softcap: above 0: ``cap * tanh(score / cap)`` (Gemma 2).

    Returns:
        ``(d_v * n_head, n_tokens)``.
    """
    n_head, n_tokens = q.ne[1], q.ne[2]
    keys, values, mask = cache.put(layer, k, v)
    q = ops.permute(q, 0, 2, 1, 3)
    if cache.flash_attn:
        out = ops.flash_attn(q, keys, values, mask, scale=scale, logit_softcap=logit_softcap)
        return ops.reshape(out, out.ne[0] * n_head, n_tokens)
    scores = ops.mul_mat(keys, q, prec=ops.PREC_F32)
    if logit_softcap > 0.0:
        scores = ops.scale(ops.tanh(ops.scale(scores, factor=scale / logit_softcap)), factor=logit_softcap)
        scale = 1.0
    weights = ops.soft_max(scores, mask, scale=scale)
    out = ops.mul_mat(values, weights)
    out = ops.cont(ops.permute(out, 0, 2, 1, 3))
    return ops.reshape(out, out.ne[0] * n_head, n_tokens)
