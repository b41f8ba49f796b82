"""The sampler against the plain chain in reference.py: candidates, frequencies, seeds, bad input."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyggml.errors import ComputeError, ParameterError
from pyggml.sampling import Sampler, SamplingParams

from .reference import chances, penalized

Floats = npt.NDArray[np.float32]

SMALL = np.array([1.5, -0.5, 3.0, 2.0, 0.25, -2.0, 2.5, 0.0], np.float32)

CHAINS: dict[str, dict[str, Any]] = {
    "nothing": {"top_k": 0, "top_p": 1.0},
    "top_k": {"top_k": 3, "top_p": 1.0},
    "top_k 1": {"top_k": 1, "top_p": 1.0},
    "top_k of all": {"top_k": 8, "top_p": 1.0},
    "top_k above all": {"top_k": 100, "top_p": 1.0},
    "top_p": {"top_k": 0, "top_p": 0.7},
    "top_p 0": {"top_k": 0, "top_p": 0.0},
    "min_p": {"top_k": 0, "top_p": 1.0, "min_p": 0.2},
    "min_p 1": {"top_k": 0, "top_p": 1.0, "min_p": 1.0},
    "top_p and min_p, p cuts": {"top_k": 0, "top_p": 0.5, "min_p": 0.01},
    "top_p and min_p, min cuts": {"top_k": 0, "top_p": 0.99, "min_p": 0.4},
    "top_k before top_p": {"top_k": 2, "top_p": 0.6},
    "all": {"top_k": 5, "top_p": 0.9, "min_p": 0.1},
    "hot": {"top_k": 0, "top_p": 0.9, "temperature": 3.0},
    "cold": {"top_k": 0, "top_p": 1.0, "temperature": 0.3},
    "repeat": {"top_k": 0, "top_p": 1.0, "repeat_penalty": 1.8},
    "presence": {"top_k": 4, "top_p": 1.0, "presence_penalty": 1.5},
    "frequency": {"top_k": 0, "top_p": 0.8, "frequency_penalty": 0.7},
    "encouraged": {"top_k": 3, "top_p": 1.0, "repeat_penalty": 0.5, "presence_penalty": -1.0},
    "no memory": {"top_k": 3, "repeat_penalty": 5.0, "repeat_last_n": 0},
    "short memory": {"top_k": 3, "repeat_penalty": 5.0, "repeat_last_n": 2},
    "whole memory": {"top_k": 3, "repeat_penalty": 5.0, "repeat_last_n": -1},
}
RECENT = [2, 2, 2, 5, 6, 1]


def draw(logits: Floats, options: dict[str, Any], n: int, *, seed: int = 5) -> list[int]:
    sampler = Sampler(SamplingParams(**({"seed": seed} | options)), n_ctx=64)
    sampler.accept(RECENT)
    before = logits.copy()
    drawn = [sampler.sample(logits) for _ in range(n)]
    np.testing.assert_array_equal(logits, before)
    return drawn


@pytest.mark.parametrize("name", CHAINS)
def test_draws_have_the_exact_chances(name: str) -> None:
    n = 2000
    want = chances(SMALL.astype(np.float64), RECENT, SamplingParams(**CHAINS[name]))
    drawn = draw(SMALL, CHAINS[name], n)
    counts = np.bincount(drawn, minlength=SMALL.size)
    assert set(drawn) <= set(want)
    # Pearson's test; a mean of k - 1 and a deviation of sqrt(2 (k - 1)): 5 of them is far below 1 in 1,000.
    expected = np.array(list(want.values())) * n
    chi2 = float((((counts[list(want)] - expected) ** 2) / expected).sum())
    freedom = len(want) - 1
    assert chi2 <= freedom + 5 * math.sqrt(2 * freedom), (counts.tolist(), want)
    assert {token for token, chance in want.items() if chance * n > 20} <= set(drawn)


numbers = st.floats(-8, 8, width=32)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    logits=st.lists(numbers, min_size=1, max_size=40),
    recent=st.lists(st.integers(0, 39), max_size=12),
    options=st.fixed_dictionaries(
        {
            "top_k": st.integers(-1, 45),
            "top_p": st.floats(0, 1),
            "min_p": st.one_of(st.just(0.0), st.floats(0.001, 1)),
            "temperature": st.one_of(st.just(0.0), st.floats(0.01, 4)),
            "repeat_penalty": st.floats(0.5, 2),
            "presence_penalty": st.floats(-1, 1),
            "frequency_penalty": st.floats(-1, 1),
            "repeat_last_n": st.integers(-1, 14),
        }
    ),
)
def test_a_draw_is_a_candidate(logits: list[float], recent: list[int], options: dict[str, Any]) -> None:
    row = np.array(logits, np.float32)
    recent = [token for token in recent if token < row.size]
    sampler = Sampler(SamplingParams(seed=3, **options), n_ctx=64)
    sampler.accept(recent)
    before = row.copy()
    token = sampler.sample(row)
    np.testing.assert_array_equal(row, before)
    # Where a value is within rounding of a limit, either answer is right: take the limits a little wider.
    p = SamplingParams(**options)
    wide = options | {"top_p": min(1.0, p.top_p + 1e-5), "min_p": p.min_p * 0.9999}
    values = penalized(row.astype(np.float64), recent, p)
    candidates = chances(row.astype(np.float64), recent, SamplingParams(**wide))
    assert token in candidates or values[token] >= min(values[list(candidates)]) - 1e-4


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({"top_k": 3, "top_p": 1.0}, {2, 6, 3}),
        ({"top_k": 0, "top_p": 0.7}, {2, 6, 3}),
        ({"top_k": 0, "top_p": 0.5}, {2, 6}),
        ({"top_k": 0, "top_p": 1.0, "min_p": 0.3}, {2, 6, 3}),
        ({"top_k": 0, "top_p": 0.5, "min_p": 0.3}, {2, 6}),
        ({"top_k": 2, "top_p": 0.63}, {2, 6}),
        ({"top_k": 2, "top_p": 0.62}, {2}),
    ],
    ids=str,
)
def test_candidates_by_hand(options: dict[str, Any], want: set[int]) -> None:
    """Shares: 2: 0.400, 6: 0.243, 3: 0.147, 0: 0.089 ...; among the best two: 0.622, 0.378. Likely tokens are hot."""
    assert set(draw(SMALL, options | {"temperature": 50.0}, 400)) == want


def test_a_nucleus_of_exactly_top_p_is_enough() -> None:
    assert set(draw(np.zeros(2, np.float32), {"top_k": 0, "top_p": 0.5}, 100)) == {0}
    assert set(draw(np.zeros(2, np.float32), {"top_k": 0, "top_p": 0.51}, 100)) == {0, 1}


@pytest.mark.parametrize("options", [{}, {"top_k": 0}, {"top_k": 0, "min_p": 0.1}, {"top_k": 0, "top_p": 1.0}], ids=str)
def test_seeds(options: dict[str, Any]) -> None:
    logits = np.random.default_rng(0).normal(size=500).astype(np.float32)
    assert draw(logits, options, 50, seed=11) == draw(logits, options, 50, seed=11)
    assert draw(logits, options, 50, seed=11) != draw(logits, options, 50, seed=12)
    assert draw(logits, options | {"seed": None}, 50) != draw(logits, options | {"seed": None}, 50)


def test_a_large_vocabulary_with_a_flat_nucleus() -> None:
    """More candidates than are looked at first."""
    logits = np.random.default_rng(0).normal(0, 0.01, size=6_000).astype(np.float32)
    drawn = draw(logits, {"top_k": 0, "top_p": 0.5, "temperature": 1.0}, 300)
    order = np.argsort(-logits)
    rank = np.empty(logits.size, int)
    rank[order] = np.arange(logits.size)
    n = len(chances(logits.astype(np.float64), [], SamplingParams(top_k=0, top_p=0.5)))
    assert 2_700 < n < 3_000
    assert max(rank[drawn]) <= n and max(rank[drawn]) > 0.95 * n


@pytest.mark.parametrize(("temperature", "top_k"), [(0.0, 40), (-1.0, 0), (1e-300, 40), (1e-320, 0)])
def test_the_most_likely(temperature: float, top_k: int) -> None:
    assert draw(SMALL, {"temperature": temperature, "top_k": top_k}, 20) == [2] * 20


def test_ties_go_to_the_lower_id() -> None:
    ties = np.array([0, 2, 1, 2, 2, 1], np.float32)
    assert draw(ties, {"temperature": 0.0}, 1) == [1]
    assert set(draw(ties, {"top_k": 2, "top_p": 1.0}, 200)) == {1, 3}
    assert set(draw(ties, {"top_k": 4, "top_p": 1.0, "temperature": 9.0}, 400)) == {1, 2, 3, 4}
    assert set(draw(ties, {"top_k": 0, "top_p": 1.0, "min_p": 1.0}, 200)) == {1, 3, 4}


def test_penalties_apply_to_the_most_likely_too() -> None:
    assert draw(SMALL, {"temperature": 0.0, "presence_penalty": 0.6}, 1) == [2]
    assert draw(SMALL, {"temperature": 0.0, "presence_penalty": 1.1}, 1) == [3]  # 2 and 6 are recent


def test_the_memory_moves_on() -> None:
    sampler = Sampler(SamplingParams(temperature=0, presence_penalty=9.0, repeat_last_n=2))
    found = []
    for _ in range(6):
        token = sampler.sample(SMALL)
        sampler.accept((token,))
        found.append(token)
    assert found == [2, 6, 3, 2, 6, 3]


def test_unknown_recent_tokens_count_for_nobody() -> None:
    plain = Sampler(SamplingParams(temperature=0, frequency_penalty=0.2))
    plain.accept([2])
    odd = Sampler(SamplingParams(temperature=0, frequency_penalty=0.2))
    odd.accept([-5, -5, -5, -5, -5, 2, 99])
    assert plain.sample(SMALL) == odd.sample(SMALL) == 2


def test_minus_infinity_is_never_drawn() -> None:
    masked = np.full(6, -np.inf, np.float32)
    masked[[1, 4]] = 0.0
    for options in CHAINS.values():
        assert set(draw(masked, options | {"repeat_penalty": 1.0}, 50)) <= {1, 4}


@pytest.mark.parametrize("options", [{"temperature": 0.0}, *CHAINS.values()], ids=str)
def test_nan_is_an_error(options: dict[str, Any]) -> None:
    for at in (0, 3, 7):
        row = SMALL.copy()
        row[at] = np.nan
        with pytest.raises(ComputeError, match="NaN"):
            draw(row, options, 1)


@pytest.mark.parametrize("options", [CHAINS["nothing"], CHAINS["top_k"], CHAINS["top_p"], CHAINS["min_p"]], ids=str)
@pytest.mark.parametrize("row", [[0.0, np.inf, 1.0], [-np.inf, -np.inf]], ids=str)
def test_no_finite_largest_value_is_an_error(row: list[float], options: dict[str, Any]) -> None:
    sampler = Sampler(SamplingParams(**options))
    with pytest.raises(ComputeError, match="infinite"):
        sampler.sample(np.array(row, np.float32))


@pytest.mark.parametrize(
    "row",
    [np.zeros(4), np.zeros((2, 2), np.float32), np.zeros(8, np.float32)[::2], np.zeros(0, np.float32)],
    ids=["float64", "2-d", "strided", "empty"],
)
def test_what_is_no_row_of_float32(row: npt.NDArray[Any]) -> None:
    with pytest.raises(ParameterError, match="contiguous row of float32"):
        Sampler(SamplingParams()).sample(row)


def test_a_row_that_cannot_be_written() -> None:
    row = SMALL.copy()
    row.flags.writeable = False
    assert draw(row, CHAINS["repeat"], 20) == draw(SMALL, CHAINS["repeat"], 20)
    assert draw(row, CHAINS["top_k"], 20) == draw(SMALL, CHAINS["top_k"], 20)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": math.nan},
        {"top_p": -0.1},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"min_p": 2.0},
        {"repeat_penalty": 0.0},
        {"repeat_penalty": math.inf},
        {"presence_penalty": math.nan},
        {"frequency_penalty": math.inf},
        {"repeat_last_n": -2},
        {"seed": -1},
        {"seed": 1.5},
        {"top_k": 2.5},
        {"top_k": True},
        {"top_p": "0.9"},
        {"temperature": None},
        {"temperature": [1.0]},
        {"temperature": math.inf},
        {"temperature": 10**400},
        {"typical_p": 1.5},
        {"top_n_sigma": math.nan},
        {"xtc_probability": -0.1},
        {"xtc_threshold": 1.01},
        {"dynatemp_range": -1.0},
        {"dynatemp_exponent": math.inf},
        {"mirostat": 3},
        {"mirostat": True},
        {"mirostat": 1.0},
        {"mirostat_tau": -1.0},
        {"mirostat_eta": math.nan},
        {"dry_multiplier": -0.5},
        {"dry_base": 0.5},
        {"dry_allowed_length": -1},
        {"dry_penalty_last_n": -2},
        {"dry_sequence_breakers": "\n"},
        {"dry_sequence_breakers": ["ok", ""]},
        {"dry_sequence_breakers": [b"x"]},
        {"dry_sequence_breakers": ["x" * 41]},
        {"dry_sequence_breakers": None},
        {"logit_bias": {-1: 1.0}},
        {"logit_bias": {2**31: 1.0}},
        {"logit_bias": {"5": 1.0}},
        {"logit_bias": {5: math.nan}},
        {"logit_bias": {5: math.inf}},
        {"logit_bias": {5: "a"}},
        {"logit_bias": [(5, 1.0), (5, 2.0)]},
        {"logit_bias": [5]},
        {"logit_bias": 5},
        {"logit_bias": "ab"},
        {"min_keep": -1},
        {"top_k": 2**31},
        {"repeat_penalty": 1e-39},
    ],
    ids=str,
)
def test_options_out_of_range_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=next(iter(options))):
        SamplingParams(**options)


def test_options_are_values() -> None:
    """Lists and mappings are kept as tuples, so equal options are equal, hashable and cannot change."""
    given: dict[str, Any] = {"logit_bias": {7: -1, 3: 2.5}, "dry_sequence_breakers": ["a", "b"]}
    p = SamplingParams(**given)
    assert p.logit_bias == ((3, 2.5), (7, -1.0))
    assert p.dry_sequence_breakers == ("a", "b")
    assert p == SamplingParams(logit_bias=[(7, -1.0), (3, 2.5)], dry_sequence_breakers=("a", "b"))
    assert len({p, replace(p), replace(p, seed=1)}) == 2
