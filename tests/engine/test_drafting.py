"""Prompt lookup against a search without any index, and what it does with success and failure."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyggml.engine.drafting import Drafter, PromptLookup
from pyggml.errors import ParameterError

few = st.integers(0, 3)
ids = st.one_of(few, st.sampled_from([0, 1, 262_143, 2**31 - 1]))


def naive(tokens: list[int], *, ngram_min: int, ngram_max: int, n: int) -> list[int]:
    """The definition, at quadratic cost."""
    for size in range(ngram_max, ngram_min - 1, -1):
        tail = tokens[-size:]
        for begin in range(len(tokens) - size - 1, -1, -1):
            if len(tail) == size and tokens[begin : begin + size] == tail:
                longer = list(tokens)
                for at in range(begin + size, begin + size + n):
                    longer.append(longer[at])
                return longer[len(tokens) :]
    return []


@given(texts=st.lists(st.tuples(st.integers(0, 30), st.lists(ids, max_size=12)), max_size=6), low=st.integers(1, 3))
@settings(deadline=None)
def test_equals_the_search_without_an_index(texts: list[tuple[int, list[int]]], low: int) -> None:
    drafter = PromptLookup(ngram_min=low, ngram_max=low + 2, n_draft=8)
    tokens: list[int] = []
    for keep, more in texts:  # grows, is cut, and is cut and grown beyond its old length in between
        tokens = tokens[:keep] + more
        got = drafter.draft(tokens, n_max=5)
        assert got == naive(tokens, ngram_min=low, ngram_max=low + 2, n=5)


def test_the_most_recent_occurrence_wins() -> None:
    drafter = PromptLookup(ngram_min=2, ngram_max=2)
    assert drafter.draft([1, 2, 7, 1, 2, 8, 9, 1, 2], n_max=2) == [8, 9]


def test_the_longest_match_wins_over_a_more_recent_one() -> None:
    drafter = PromptLookup(ngram_min=1, ngram_max=3)
    assert drafter.draft([5, 1, 2, 7, 0, 2, 8, 0, 5, 1, 2], n_max=1) == [7]


def test_repetition_goes_on_beyond_the_end_of_the_text() -> None:
    drafter: Drafter = PromptLookup()
    assert drafter.draft([1, 2, 3, 1, 2, 3, 1, 2], n_max=8) == [3, 1, 2, 3, 1, 2, 3, 1]


def test_zero_tokens_are_no_absent_tokens() -> None:
    assert PromptLookup(ngram_min=2, ngram_max=2).draft([0], n_max=4) == []
    assert PromptLookup(ngram_min=2, ngram_max=3).draft([0, 0], n_max=4) == []
    assert PromptLookup(ngram_min=2, ngram_max=2).draft([0, 0, 0], n_max=2) == [0, 0]


def test_length_follows_acceptance() -> None:
    drafter = PromptLookup(n_draft=16)
    text = list(range(40)) * 2
    assert len(drafter.draft(text, n_max=99)) == 16
    drafter.accepted(16, 2)
    assert len(drafter.draft(text, n_max=99)) == 3
    drafter.accepted(3, 3)
    assert len(drafter.draft(text, n_max=99)) == 6
    drafter.accepted(6, 6)
    assert len(drafter.draft(text, n_max=99)) == 12
    assert len(drafter.draft(text, n_max=4)) == 4
    drafter.accepted(4, 4)
    assert len(drafter.draft(text, n_max=99)) == 12, "a draft that was cut short from outside teaches nothing"


def test_useless_drafts_become_rare_and_success_brings_them_back() -> None:
    drafter = PromptLookup()
    text = [1, 2, 3] * 5
    made = 0
    for _ in range(300):
        if draft := drafter.draft(text, n_max=8):
            made += 1
            drafter.accepted(len(draft), 0)
    assert made <= 10
    while not (draft := drafter.draft(text, n_max=8)):
        pass
    drafter.accepted(len(draft), len(draft))
    assert drafter.draft(text, n_max=8)
    drafter.accepted(0, 0)
    assert drafter.draft(text, n_max=8)


def test_cost_does_not_grow_with_the_text() -> None:
    def cost(n: int) -> float:
        drafter = PromptLookup()
        text = [i * 7919 % 1009 for i in range(n)]
        drafter.draft(text, n_max=4)
        best = 1.0
        for i in range(200):
            text.append(i)
            began = time.perf_counter()
            drafter.draft(text, n_max=4)
            best = min(best, time.perf_counter() - began)
        return best

    assert cost(100_000) < 10 * cost(1_000)


@pytest.mark.parametrize("options", [{"ngram_min": 0}, {"ngram_min": 5}, {"ngram_max": 33}, {"n_draft": 0}])
def test_options_out_of_range(options: dict[str, int]) -> None:
    with pytest.raises(ParameterError, match=next(iter(options))):
        PromptLookup(**options)


def test_impossible_feedback() -> None:
    with pytest.raises(ParameterError, match="3 of 2"):
        PromptLookup().accepted(2, 3)
