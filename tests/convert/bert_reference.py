"""BERT's forward pass in numpy, straight from the paper (Devlin et al. 2018), with mean pooling and
normalization.
"""

import math
from collections.abc import Callable

import numpy as np

_erf = np.vectorize(math.erf, otypes=[np.float64])


def embed(
    weight: Callable[[str], np.ndarray], ids: list[int], *, n_layers: int, n_heads: int, eps: float
) -> np.ndarray:
    """The sentence vector of one text.

    Args:
        weight: Gives a tensor by its name in GGUF, in numpy order.
        ids: Token ids, with [CLS] and [SEP].
        n_layers: Encoder layers.
        n_heads: Attention heads.
        eps: Of the layer norms.
    """

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weight(f"{name}.weight").astype(np.float64).T + weight(f"{name}.bias")

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
        return scaled * weight(f"{name}.weight") + weight(f"{name}.bias")

    def heads(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(ids), n_heads, -1).swapaxes(0, 1)

    x = weight("token_embd.weight")[ids].astype(np.float64)
    x = x + weight("position_embd.weight")[: len(ids)] + weight("token_types.weight")[0]
    x = norm(x, "token_embd_norm")
    for i in range(n_layers):
        q, k, v = (heads(linear(x, f"blk.{i}.attn_{name}")) for name in "qkv")
        scores = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        attended = (scores / scores.sum(-1, keepdims=True)) @ v
        attended = attended.swapaxes(0, 1).reshape(x.shape)
        x = norm(x + linear(attended, f"blk.{i}.attn_output"), f"blk.{i}.attn_output_norm")
        hidden = linear(x, f"blk.{i}.ffn_up")
        hidden = hidden * 0.5 * (1 + _erf(hidden / math.sqrt(2)))
        x = norm(x + linear(hidden, f"blk.{i}.ffn_down"), f"blk.{i}.layer_output_norm")
    mean = x.mean(0)
    return np.asarray(mean / np.linalg.norm(mean))
