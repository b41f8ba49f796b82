"""The recorded files hold what they promise, and `explain` tells a near tie from a mistake."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from .goldens import FLASH_CHOICES, Case, Floats, explain, load_embeddings, load_goldens
from .texts import prompts, sentences

MODELS = ("smollm2", "gemma3-270m")
MEAN_DISTANCE = 0.5
"""No case is further from the float32 computation than this on average; the farthest is at 0.35. Logits of both
models have a standard deviation of 3 or more over the vocabulary, so a mistake in the graph shows at once."""


def _cases() -> list[tuple[str, Case]]:
    return [(model, case) for model in MODELS for case in load_goldens(model).cases]


def _row(case: Case, position: int, *, n_vocab: int = 262144) -> Floats:
    """A vocabulary row that agrees with every recorded number of one position."""
    row = np.full(n_vocab, -100.0, np.float32)
    row[case.sample_ids] = case.logits[True][position]
    row[case.top_ids[True][position]] = case.top_values[True][position]
    return row


@pytest.mark.parametrize("model", MODELS)
def test_cases_are_those_of_the_prompt_list(model: str) -> None:
    recorded = [(case.name, case.text, case.parse_special) for case in load_goldens(model).cases]
    assert recorded == [(prompt.name, prompt.text, prompt.parse_special) for prompt in prompts(model)]


@pytest.mark.parametrize("model", MODELS)
def test_long_case_is_far_beyond_the_sliding_window(model: str) -> None:
    assert len(load_goldens(model).case("long-prose").prompt_ids) >= 1500


@pytest.mark.parametrize(("model", "case"), _cases(), ids=lambda value: getattr(value, "name", value))
def test_case_is_consistent(model: str, case: Case) -> None:
    assert case.positions[-1] == len(case.prompt_ids) - 1
    for flash in FLASH_CHOICES:
        assert len(case.greedy_ids[flash]) == len(case.margins[flash]) == 128
        assert (case.margins[flash] >= 0).all()
        assert (case.greedy_ids[flash] != case.runner_up_ids[flash]).all()
        assert (np.diff(np.stack(list(case.top_values[flash].values()))) <= 0).all()
        assert case.greedy_ids[flash][0] == case.top_ids[flash][case.positions[-1]][0]


@pytest.mark.parametrize(("model", "case"), _cases(), ids=lambda value: getattr(value, "name", value))
def test_recorded_logits_lie_near_the_float32_computation(model: str, case: Case) -> None:
    for flash in FLASH_CHOICES:
        gaps = [np.abs(case.logits[flash][at] - case.exact_logits[at]).mean() for at in case.positions]
        assert np.mean(gaps) < MEAN_DISTANCE, model
        same = [case.top_ids[flash][at][0] == case.exact_best[at] for at in case.positions]
        assert sum(same) >= len(same) - 1


def test_explain_finds_nothing_in_the_recorded_numbers_themselves() -> None:
    case = load_goldens("smollm2").case("chat")
    rows = {position: _row(case, position) for position in case.positions}
    report = explain(case, case.greedy_ids[True], rows)
    assert report.first_divergence is None
    assert report.explained
    assert report.max_difference == 0.0
    assert report.same_best == report.compared_positions == len(case.positions)
    assert report.from_exact == report.recorded_from_exact > 0.0


def test_explain_accepts_the_runner_up_at_a_near_tie() -> None:
    case = load_goldens("smollm2").case("chat")
    step = int(case.margins[True].argmin())
    tokens = case.greedy_ids[True].copy()
    tokens[step] = case.runner_up_ids[True][step]
    report = explain(case, tokens, {})
    assert (report.first_divergence, report.near_tie, report.explained) == (step, True, True)
    assert "near tie" in str(report)
    assert np.isnan(report.max_difference)


def test_explain_rejects_the_runner_up_at_a_wide_margin() -> None:
    case = load_goldens("smollm2").case("chat")
    step = int(case.margins[True].argmax())
    tokens = case.greedy_ids[True].copy()
    tokens[step] = case.runner_up_ids[True][step]
    report = explain(case, tokens, {})
    assert (report.first_divergence, report.explained) == (step, False)
    assert "NOT a near tie" in str(report)


def test_explain_rejects_a_third_token_at_a_near_tie() -> None:
    case = load_goldens("smollm2").case("chat")
    step = int(case.margins[True].argmin())
    tokens = case.greedy_ids[True].copy()
    tokens[step] = next(i for i in range(9) if i not in (tokens[step], case.runner_up_ids[True][step]))
    assert not explain(case, tokens, {}).explained


def test_explain_measures_the_largest_difference() -> None:
    case = load_goldens("gemma3-270m").case("code")
    position = case.positions[2]
    row = _row(case, position)
    row[case.sample_ids[7]] += 2.5
    report = explain(case, [], {position: row})
    assert report.max_difference == pytest.approx(2.5, abs=1e-5)
    assert 0 < report.mean_difference < 0.01


def test_explain_refuses_what_was_not_recorded() -> None:
    case = replace(load_goldens("smollm2").case("code"), name="renamed")
    with pytest.raises(ValueError, match="renamed: position 1 was not recorded"):
        explain(case, [], {1: _row(case, 0)})
    with pytest.raises(ValueError, match="129 tokens given, 128 recorded"):
        explain(case, [0] * 129, {})


def test_unknown_models_and_cases_are_named() -> None:
    with pytest.raises(FileNotFoundError, match="nothing is recorded for 'llama7'"):
        load_goldens("llama7")
    with pytest.raises(KeyError, match="smollm2 has no case 'poem'"):
        load_goldens("smollm2").case("poem")


def test_embeddings_are_unit_vectors_of_the_listed_sentences() -> None:
    recorded = load_embeddings()
    assert list(recorded.sentences) == sentences()
    assert recorded.embeddings.shape == (12, 384)
    assert np.linalg.norm(recorded.embeddings, axis=1) == pytest.approx(np.ones(12), abs=1e-6)
    assert [ids[0] for ids in recorded.token_ids] == [101] * 12
    assert [ids[-1] for ids in recorded.token_ids] == [102] * 12
    similar = recorded.embeddings @ recorded.embeddings.T
    assert similar[0, 1] > 0.7 > similar[0, 2:].max()
