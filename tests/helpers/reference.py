"""Forward passes in plain numpy, float64: the papers' formulas and nothing of pyggml's. Arrays are ``(token, ...)``."""

import math

import numpy as np
import numpy.typing as npt

from .tiny import TinyConfig, TinyModel

__all__ = ["bert_states", "logits"]

Array = npt.NDArray[np.float64]


def logits(model: TinyModel, ids: list[int]) -> Array:
    """``(n_tokens, n_vocab)`` of a llama or a gemma3."""
    return _gemma3(model, ids) if model.config.architecture == "gemma3" else _llama(model, ids)


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + eps) * weight + bias


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def silu(x: Array) -> Array:
    return x / (1.0 + np.exp(-x))


def gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def gelu_erf(x: Array) -> Array:
    erf = np.vectorize(math.erf)
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


class _Weights:
    """Looks up one block's tensors; a linear layer adds its bias when there is one."""

    def __init__(self, model: TinyModel, prefix: str = "") -> None:
        self.all, self.prefix = model.weights, prefix

    def __getitem__(self, name: str) -> Array:
        return self.all[self.prefix + name]

    def linear(self, name: str, x: Array) -> Array:
        y = x @ self[f"{name}.weight"].T
        bias = self.all.get(f"{self.prefix}{name}.bias")
        return y if bias is None else y + bias


def _angles(c: TinyConfig, n: int, *, base: float, scaling: str | None, factors: Array | None) -> tuple[Array, float]:
    """Angles ``(n, d / 2)`` and the factor on cosine and sine (YaRN: Peng et al. 2023, sections 3.2 to 3.4)."""
    d = c.d_head
    pair = np.arange(d // 2)
    frequency = base ** (-2.0 * pair / d)
    if factors is not None:
        frequency = frequency / factors
    magnitude = 1.0
    if scaling == "linear":
        frequency = frequency / c.scaling_factor
    elif scaling == "yarn":

        def dimension(rotations: float) -> float:
            return d * math.log(c.original_context / (rotations * 2 * math.pi)) / (2 * math.log(base))

        low, high = max(0.0, math.floor(dimension(32.0))), min(d - 1.0, math.ceil(dimension(1.0)))
        interpolated = np.clip((pair - low) / max(0.001, high - low), 0.0, 1.0)
        frequency = frequency * (1.0 - interpolated) + frequency / c.scaling_factor * interpolated
        magnitude = 1.0 + 0.1 * math.log(c.scaling_factor)
    return np.arange(n)[:, None] * frequency, magnitude


def _rotate(x: Array, angles: tuple[Array, float], *, neox: bool) -> Array:
    """``x`` ``(token, head, d)``: pairs are neighbours, or with ``neox`` the two halves."""
    theta, magnitude = angles
    cos, sin = magnitude * np.cos(theta)[:, None], magnitude * np.sin(theta)[:, None]
    half = x.shape[-1] // 2
    first, second = (x[..., :half], x[..., half:]) if neox else (x[..., ::2], x[..., 1::2])
    a, b = first * cos - second * sin, first * sin + second * cos
    return np.concatenate([a, b], -1) if neox else np.stack([a, b], -1).reshape(x.shape)


def _attend(q: Array, k: Array, v: Array, *, scale: float, window: int = 0, causal: bool = True) -> Array:
    """``q`` ``(t, h, d)`` over ``k``, ``v`` ``(t, h_kv, d)``; returns ``(t, h * d)``."""
    n, group = q.shape[0], q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    distance = np.arange(n)[:, None] - np.arange(n)[None, :]
    allowed = np.ones((n, n), bool)
    if causal:
        allowed &= distance >= 0
    if window:
        allowed &= distance < window
    scores = np.where(allowed, np.einsum("qhd,khd->hqk", q, k) * scale, -np.inf)
    return np.einsum("hqk,khd->qhd", softmax(scores), v).reshape(n, -1)


def _heads(x: Array, n_head: int) -> Array:
    return x.reshape(x.shape[0], n_head, -1)


def _llama(model: TinyModel, ids: list[int]) -> Array:
    c, w = model.config, _Weights(model)
    angles = _angles(c, len(ids), base=10000.0, scaling=c.scaling, factors=model.weights.get("rope_freqs.weight"))
    x = w["token_embd.weight"][ids]
    for i in range(c.n_layer):
        b = _Weights(model, f"blk.{i}.")
        h = rms_norm(x, b["attn_norm.weight"], c.eps)
        q = _rotate(_heads(b.linear("attn_q", h), c.n_head), angles, neox=False)
        k = _rotate(_heads(b.linear("attn_k", h), c.n_head_kv), angles, neox=False)
        v = _heads(b.linear("attn_v", h), c.n_head_kv)
        x = x + b.linear("attn_output", _attend(q, k, v, scale=c.d_head**-0.5))
        h = rms_norm(x, b["ffn_norm.weight"], c.eps)
        x = x + b.linear("ffn_down", silu(b.linear("ffn_gate", h)) * b.linear("ffn_up", h))
    x = rms_norm(x, w["output_norm.weight"], c.eps)
    return w.linear("token_embd" if c.tied else "output", x)


def _gemma3(model: TinyModel, ids: list[int]) -> Array:
    c, w = model.config, _Weights(model)
    far = _angles(c, len(ids), base=1e6, scaling=c.scaling, factors=None)
    near = _angles(c, len(ids), base=1e4, scaling=None, factors=None)
    x = w["token_embd.weight"][ids] * math.sqrt(c.n_embd)
    for i in range(c.n_layer):
        b = _Weights(model, f"blk.{i}.")
        local = (i + 1) % c.pattern != 0
        h = rms_norm(x, b["attn_norm.weight"], c.eps)
        q = rms_norm(_heads(b.linear("attn_q", h), c.n_head), b["attn_q_norm.weight"], c.eps)
        k = rms_norm(_heads(b.linear("attn_k", h), c.n_head_kv), b["attn_k_norm.weight"], c.eps)
        v = _heads(b.linear("attn_v", h), c.n_head_kv)
        q, k = (_rotate(y, near if local else far, neox=True) for y in (q, k))
        h = b.linear("attn_output", _attend(q, k, v, scale=c.d_head**-0.5, window=c.window if local else 0))
        x = x + rms_norm(h, b["post_attention_norm.weight"], c.eps)
        h = rms_norm(x, b["ffn_norm.weight"], c.eps)
        h = b.linear("ffn_down", gelu_tanh(b.linear("ffn_gate", h)) * b.linear("ffn_up", h))
        x = x + rms_norm(h, b["post_ffw_norm.weight"], c.eps)
    y = w.linear("token_embd" if c.tied else "output", rms_norm(x, w["output_norm.weight"], c.eps))
    return c.softcap * np.tanh(y / c.softcap) if c.softcap else y


def bert_states(model: TinyModel, ids: list[int]) -> Array:
    """``(n_tokens, n_embd)`` of the last layer."""
    c, w = model.config, _Weights(model)
    x = w["token_embd.weight"][ids] + w["token_types.weight"][0] + w["position_embd.weight"][: len(ids)]
    x = layer_norm(x, w["token_embd_norm.weight"], w["token_embd_norm.bias"], c.eps)
    for i in range(c.n_layer):
        b = _Weights(model, f"blk.{i}.")
        q, k, v = (_heads(b.linear(name, x), c.n_head) for name in ("attn_q", "attn_k", "attn_v"))
        h = b.linear("attn_output", _attend(q, k, v, scale=(c.n_embd // c.n_head) ** -0.5, causal=False))
        x = layer_norm(x + h, b["attn_output_norm.weight"], b["attn_output_norm.bias"], c.eps)
        h = b.linear("ffn_down", gelu_erf(b.linear("ffn_up", x)))
        x = layer_norm(x + h, b["layer_output_norm.weight"], b["layer_output_norm.bias"], c.eps)
    return x
