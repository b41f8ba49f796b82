"""The sampler chain written out plainly over the whole vocabulary, in the order of llama.cpp's default."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pyggml.sampling import SamplingParams

__all__ = ["chances", "penalized"]

Array = npt.NDArray[np.float64]


def penalized(logits: Array, recent: Sequence[int], p: SamplingParams) -> Array:
    """Logits after the penalties for the last ``repeat_last_n`` of ``recent``."""
    out = logits.copy()
    if p.repeat_last_n == 0:
        return out
    window = recent if p.repeat_last_n < 0 else recent[-p.repeat_last_n :]
    for token, n in Counter(window).items():
        out[token] = out[token] / p.repeat_penalty if out[token] > 0 else out[token] * p.repeat_penalty
        out[token] -= n * p.frequency_penalty + p.presence_penalty
    return out


def chances(logits: Array, recent: Sequence[int], p: SamplingParams) -> dict[int, float]:
    """The candidates that are left, with the exact probability of each."""
    values = penalized(logits, recent, p)
    kept = sorted(range(len(values)), key=lambda i: (-values[i], i))
    if p.temperature <= 0:
        return {kept[0]: 1.0}
    if p.top_k > 0:
        kept = kept[: p.top_k]
    if p.top_p < 1.0:
        share = softmax(values[kept])
        total, n = 0.0, 0
        while n < len(kept) and total < p.top_p:
            total += share[n]
            n += 1
        kept = kept[: max(n, 1)]
    if p.min_p > 0.0:
        kept = [i for i in kept if values[i] >= values[kept[0]] + np.log(p.min_p)]
    return dict(zip(kept, softmax(values[kept] / p.temperature).tolist(), strict=True))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return e / e.sum()
