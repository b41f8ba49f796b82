"""The whole chain against the plain one in reference.py: who is left, with what probability."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyggml.sampling import DryBreakers, Sampler, SamplingParams

from .reference import chances, mirostat_chances, prepared

Floats = npt.NDArray[np.float32]
OFF: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
# Limits that rounding may push a candidate across, and how far.
LIMITS = {"top_p": 2e-6, "typical_p": 2e-6, "min_p": 2e-6, "xtc_threshold": 2e-6, "top_n_sigma": 1e-4}


def alternatives(p: SamplingParams) -> Iterator[SamplingParams]:
    """The options, and those whose limits are moved by less than anybody could notice."""
    on = [name for name in LIMITS if getattr(p, name) not in (1.0, 0.0, -1.0)]
    for signs in itertools.product((0, 1, -1), repeat=len(on)):
        moved = {name: getattr(p, name) + sign * LIMITS[name] for name, sign in zip(on, signs, strict=True)}
        inside = {name: value if name == "top_n_sigma" else min(max(value, 0.0), 1.0) for name, value in moved.items()}
        yield replace(p, **inside)


def same(found: dict[int, float], want: dict[int, float]) -> bool:
    return found.keys() == want.keys() and np.allclose([found[i] for i in want], list(want.values()), 2e-3, 1e-6)


def check(
    logits: Floats,
    p: SamplingParams,
    recent: Sequence[int] = (),
    breakers: Sequence[Sequence[int]] = (),
    mask: Sequence[int] | None = None,
) -> None:
    sampler = Sampler(p, n_ctx=64, breakers=DryBreakers(breakers))
    sampler.accept(recent)
    words = None if mask is None else np.array(mask, np.uint32).view(np.int32)
    before = logits.copy()
    ids, probs = sampler.distribution(logits, mask=words)
    np.testing.assert_array_equal(logits, before)
    assert probs.sum() == pytest.approx(1.0)
    assert (np.diff(probs) <= 0).all()
    found = dict(zip(ids.tolist(), probs.tolist(), strict=True))
    exact = logits.astype(np.float64)
    wanted = (chances(exact, recent, q, breakers=breakers, mask=mask) for q in alternatives(p))
    assert any(same(found, want) for want in wanted), (found, chances(exact, recent, p, breakers=breakers, mask=mask))
    assert sampler.sample(logits, mask=words) in found


shares = st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 1.0])
options = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.0, 0.2, 0.8, 1.0, 3.0]),
        "top_k": st.integers(-1, 45),
        "top_p": shares,
        "min_p": shares,
        "typical_p": shares,
        "top_n_sigma": st.sampled_from([-1.0, 0.3, 1.0, 2.5]),
        "xtc_probability": st.sampled_from([0.0, 1.0]),
        "xtc_threshold": shares,
        "dynatemp_range": st.sampled_from([0.0, 0.5, 2.0]),
        "dynatemp_exponent": st.sampled_from([0.5, 1.0, 2.0]),
        "repeat_penalty": st.sampled_from([0.5, 1.0, 1.3]),
        "presence_penalty": st.sampled_from([-1.0, 0.0, 0.7]),
        "frequency_penalty": st.sampled_from([-0.5, 0.0, 0.4]),
        "repeat_last_n": st.integers(-1, 14),
        "dry_multiplier": st.sampled_from([0.0, 0.8]),
        "dry_base": st.sampled_from([1.0, 1.75]),
        "dry_allowed_length": st.integers(0, 4),
        "dry_penalty_last_n": st.integers(-1, 14),
        "logit_bias": st.dictionaries(st.integers(0, 0), st.sampled_from([-3.0, 4.0]), max_size=1),
        "min_keep": st.integers(0, 6),
    },
)
# Distinct values: what equal ones do is said in test_sampler.py, and rounding would make it a matter of luck here.
rows = st.lists(st.integers(-4000, 4000), min_size=1, max_size=40, unique=True)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    row=rows,
    scale=st.sampled_from([0.0013, 0.003]),
    chosen=options,
    recent=st.lists(st.integers(0, 5), max_size=16),
    breakers=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3), max_size=2),
    bits=st.none() | st.integers(1, 2**40 - 1),
)
def test_against_the_reference(
    row: list[int],
    scale: float,
    chosen: dict[str, Any],
    recent: list[int],
    breakers: list[list[int]],
    bits: int | None,
) -> None:
    logits = (np.array(row) * scale).astype(np.float32)
    mask = None
    if bits is not None:
        bits |= 1 << (bits % len(row))  # one at least
        mask = [bits >> 32 * word & 0xFFFFFFFF for word in range((len(row) + 31) // 32)]
    check(logits, SamplingParams(seed=3, **(OFF | chosen)), recent, breakers, mask)


LARGE: list[dict[str, Any]] = [
    {},
    {"top_k": 40, "top_p": 0.9},
    {"top_k": 1000, "min_p": 0.001},
    {"top_k": 4000, "top_p": 0.99},
    {"top_p": 0.9},
    {"top_p": 0.999, "temperature": 0.7},
    {"top_p": 0.3, "min_keep": 700},
    {"min_p": 0.05},
    {"min_p": 0.9, "min_keep": 300},
    {"typical_p": 0.7},
    {"typical_p": 0.7, "min_keep": 2000},
    {"top_n_sigma": 1.5},
    {"top_n_sigma": 2.5, "top_k": 20, "top_p": 0.8},
    {"xtc_probability": 1.0, "xtc_threshold": 0.01},
    {"xtc_probability": 1.0, "xtc_threshold": 0.0, "top_k": 50},
    {"dynatemp_range": 0.6},
    {"top_k": 100, "dynatemp_range": 0.6, "dynatemp_exponent": 2.0},
    {"top_k": 500, "typical_p": 0.95, "top_p": 0.97, "min_p": 0.01, "xtc_probability": 1.0, "xtc_threshold": 0.02},
]


@pytest.mark.parametrize("n", [7, 8, 17, 1023, 1024, 1025, 4999, 40_003])
@pytest.mark.parametrize("chosen", LARGE, ids=str)
def test_rows_of_every_size(n: int, chosen: dict[str, Any]) -> None:
    """Rows beyond a chunk, and those that end in the middle of a vector; some tokens are out."""
    rng = np.random.default_rng(n)
    logits = (rng.normal(size=n) * 3 - 5).astype(np.float32)
    logits[rng.integers(0, n, n // 5)] = -np.inf
    logits[n // 2] = 4.0
    check(logits, SamplingParams(seed=1, **(OFF | chosen)))


@pytest.mark.parametrize("chosen", LARGE[:8], ids=str)
def test_masks_of_large_rows(chosen: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    n = 5000
    logits = (rng.normal(size=n) * 2).astype(np.float32)
    mask = rng.integers(0, 2**32, (n + 31) // 32, dtype=np.uint64).tolist()
    check(logits, SamplingParams(seed=1, **(OFF | chosen)), mask=mask)


@pytest.mark.parametrize("shape", ["rising", "falling", "saw", "one high chunk", "equal but one"])
@pytest.mark.parametrize("chosen", [{"top_k": 40}, {"top_k": 2500}, {"top_p": 0.9}, {"typical_p": 0.5}], ids=str)
def test_orders_that_are_hard_to_select_from(shape: str, chosen: dict[str, Any]) -> None:
    at = np.arange(6000)
    values = {
        "rising": at * 1e-3,
        "falling": -at * 1e-3,
        "saw": (at % 100) * 0.1 - at * 1e-4,
        "one high chunk": np.where(at // 1024 == 3, 5.0, 0.0) - at * 1e-4,
        "equal but one": np.where(at == 4321, 1.0, 0.0),
    }[shape]
    logits = values.astype(np.float32)
    p = SamplingParams(seed=1, **(OFF | chosen))
    if shape == "equal but one" and "top_k" not in chosen:  # whose sums round: only the number is sure
        ids, _ = Sampler(p).distribution(logits)
        want = len(chances(logits.astype(np.float64), [], p))
        assert abs(len(ids) - want) <= 2 and ids[0] == (4321 if "top_p" in chosen else 0)
        assert set(ids[1:]) <= set(range(want + 3))
        return
    check(logits, p)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("n", [1, 2, 30, 150, 5000])
@pytest.mark.parametrize("chosen", [{}, {"mirostat_tau": 2.0}, {"temperature": 0.6}, {"repeat_penalty": 1.5}], ids=str)
def test_mirostat(version: int, n: int, chosen: dict[str, Any]) -> None:
    logits = (np.random.default_rng(n).normal(size=n) * 2).astype(np.float32)
    p = SamplingParams(seed=4, mirostat=version, **({"temperature": 1.0, "mirostat_eta": 0.3} | chosen))
    sampler = Sampler(p)
    mu, recent = 2 * p.mirostat_tau, [0, 0, 1]
    sampler.accept(recent)
    for _ in range(12):
        want = mirostat_chances(prepared(logits.astype(np.float64), recent, p), p, mu=mu)
        ids, probs = sampler.distribution(logits)
        assert dict(zip(ids.tolist(), probs.tolist(), strict=True)) == pytest.approx(want, rel=1e-4)
        token = sampler.sample(logits)
        mu -= p.mirostat_eta * (-np.log2(want[token]) - p.mirostat_tau)


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_holds_the_surprise(version: int) -> None:
    logits = (np.random.default_rng(0).normal(size=3000) * 2.5).astype(np.float32)
    exact = logits.astype(np.float64)
    probs = np.exp(exact - exact.max()) / np.exp(exact - exact.max()).sum()
    for tau in (3.0, 5.0):
        sampler = Sampler(SamplingParams(seed=1, temperature=1.0, mirostat=version, mirostat_tau=tau))
        surprise = []
        for _ in range(600):
            ids, left = sampler.distribution(logits)
            token = sampler.sample(logits)
            surprise.append(-np.log2(left[ids == token][0]))
            assert probs[token] > 0
        assert np.mean(surprise[100:]) == pytest.approx(tau, abs=0.25)
