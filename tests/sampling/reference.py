"""The sampler chain written out plainly in float64: everything sorted, nothing clever."""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from pyggml.sampling import SamplingParams

__all__ = ["allowed", "chances", "dried", "entropy", "mirostat_chances", "penalized", "prepared", "softmax", "unpack"]

Array = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return np.asarray(e / e.sum())


def entropy(p: Array) -> float:
    positive = p[p > 0]
    return float(-(positive * np.log(positive)).sum())


def unpack(mask: Sequence[int], n: int) -> npt.NDArray[np.bool_]:
    """The bits of 32-bit words, the lowest first."""
    return np.array([bool(int(mask[i // 32]) >> i % 32 & 1) for i in range(n)])


def allowed(logits: Array, p: SamplingParams, mask: Sequence[int] | None) -> Array:
    """Logits after mask and bias."""
    out = logits.copy()
    if mask is not None:
        out[~unpack(mask, len(out))] = -np.inf
    for token, bias in dict(p.logit_bias).items():
        out[token] += bias
    return out


def penalized(logits: Array, recent: Sequence[int], p: SamplingParams) -> Array:
    """Logits after the penalties for the last ``repeat_last_n`` of ``recent``."""
    out = logits.copy()
    if p.repeat_last_n == 0:
        return out
    window = recent if p.repeat_last_n < 0 else recent[-p.repeat_last_n :]
    for token, n in Counter(window).items():
        if 0 <= token < len(out):
            out[token] = out[token] / p.repeat_penalty if out[token] > 0 else out[token] * p.repeat_penalty
            out[token] -= n * p.frequency_penalty + p.presence_penalty
    return out


def dried(logits: Array, recent: Sequence[int], p: SamplingParams, breakers: Collection[Sequence[int]] = ()) -> Array:
    """Logits after DRY: for each place, how much of the end of the text is repeated before it, by comparing."""
    out = logits.copy()
    text = list(recent if p.dry_penalty_last_n < 0 else recent[len(recent) - min(p.dry_penalty_last_n, len(recent)) :])
    limit = _since_breaker(text, breakers)
    if not p.dries or len(text) <= p.dry_allowed_length or limit < p.dry_allowed_length:
        return out
    longest: dict[int, int] = {}
    for place in range(1, len(text)):  # text[place] followed a repeat of the end
        same = 0
        while same < min(place, limit) and text[place - 1 - same] == text[-1 - same]:
            same += 1
        if same >= p.dry_allowed_length:
            longest[text[place]] = max(same, longest.get(text[place], 0))
    for token, same in longest.items():
        if 0 <= token < len(out) and (token,) not in {tuple(b) for b in breakers}:
            out[token] -= p.dry_multiplier * p.dry_base ** (same - p.dry_allowed_length)
    return out


def _since_breaker(text: Sequence[int], breakers: Collection[Sequence[int]]) -> int:
    """How many tokens there are behind the last breaker; of several that start at one place the longest counts."""
    for start in range(len(text) - 1, -1, -1):
        found = [len(b) for b in breakers if b and list(b) == list(text[start : start + len(b)])]
        if found:
            return len(text) - start - max(found)
    return len(text)


def prepared(
    logits: Array,
    recent: Sequence[int],
    p: SamplingParams,
    *,
    breakers: Collection[Sequence[int]] = (),
    mask: Sequence[int] | None = None,
) -> Array:
    """Logits as the truncations see them."""
    return dried(penalized(allowed(logits, p, mask), recent, p), recent, p, breakers)


def _by_value(x: Array) -> Ids:
    """Finite candidates, best first, ties by lower id."""
    order = np.lexsort((np.arange(len(x)), -x))
    return np.asarray(order[np.isfinite(x[order])])


def _reach(share: Array, target: float, min_keep: int, *, exceed: bool) -> int:
    """How many of the first are needed for the target."""
    total = np.cumsum(share)
    enough = total > target if exceed else total >= target
    first = int(np.argmax(enough)) + 1 if enough.any() else len(share)
    return min(max(first, min_keep, 1), len(share))


def chances(
    logits: Array,
    recent: Sequence[int],
    p: SamplingParams,
    *,
    breakers: Collection[Sequence[int]] = (),
    mask: Sequence[int] | None = None,
) -> dict[int, float]:
    """The candidates that are left, with the exact probability of each. XTC acts if its probability is 1."""
    x = prepared(logits, recent, p, breakers=breakers, mask=mask)
    kept = _by_value(x)
    if p.temperature <= 0:
        return {int(kept[0]): 1.0}
    if p.top_n_sigma > 0:
        kept = kept[x[kept] >= x[kept[0]] - p.top_n_sigma * x[kept].std()]
    if p.top_k > 0:
        kept = kept[: p.top_k]
    if p.typical_p < 1.0:
        kept = _typical(x, kept, p)
    if p.top_p < 1.0:
        kept = kept[: _reach(softmax(x[kept]), p.top_p, p.min_keep, exceed=False)]
    if p.min_p > 0.0:
        fine = int(np.count_nonzero(x[kept] >= x[kept[0]] + np.log(p.min_p)))
        kept = kept[: max(fine, p.min_keep)]
    if p.xtc_probability == 1.0 and p.xtc_threshold <= 0.5:
        likely = int(np.count_nonzero(softmax(x[kept]) >= p.xtc_threshold))
        if likely >= 2 and len(kept) - (likely - 1) >= p.min_keep:
            kept = kept[likely - 1 :]
    return dict(zip(kept.tolist(), softmax(x[kept] / _temperature(x[kept], p)).tolist(), strict=True))


def _typical(x: Array, kept: Ids, p: SamplingParams) -> Ids:
    share = softmax(x[kept])
    odd = np.abs(-np.log(share) - entropy(share))
    order = np.lexsort((kept, odd))
    n = _reach(share[order], p.typical_p, p.min_keep, exceed=True)
    chosen = kept[order[:n]]
    return np.asarray(chosen[np.lexsort((chosen, -x[chosen]))])


def _temperature(x: Array, p: SamplingParams) -> float:
    if p.dynatemp_range <= 0 or len(x) < 2:
        return p.temperature
    share = entropy(softmax(x)) / np.log(len(x))
    low, high = max(0.0, p.temperature - p.dynatemp_range), p.temperature + p.dynatemp_range
    return max(float(low + (high - low) * share**p.dynatemp_exponent), 1e-30)


def mirostat_chances(x: Array, p: SamplingParams, *, mu: float) -> dict[int, float]:
    """The candidates that Mirostat leaves, given its limit of surprise."""
    kept = _by_value(x)
    hot = x / p.temperature
    share = softmax(hot[kept])
    if p.mirostat == 1:
        top = share[:100]
        steps = np.log(np.arange(2, len(top) + 1) / np.arange(1, len(top)))
        with np.errstate(all="ignore"):
            s = float((steps * np.log(top[:-1] / top[1:])).sum() / (steps**2).sum())
            e = s - 1
            k = np.power(e * np.exp2(mu) / (1 - np.power(float(len(x)), -e)), 1 / s)
        kept = kept[: max(int(min(k, len(kept))) if k == k else 1, 1)]
    else:
        kept = kept[: max(int(np.count_nonzero(-np.log2(share) <= mu)), 1)]
    return dict(zip(kept.tolist(), softmax(hot[kept]).tolist(), strict=True))
