"""Stop strings, however the text is cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyggml.engine import StopMatcher
from pyggml.errors import ParameterError


def feed(stop: list[str], pieces: list[str]) -> tuple[str, str | None]:
    matcher = StopMatcher(stop)
    shown = "".join(matcher.push(piece) for piece in pieces) + matcher.flush()
    if matcher.found is not None:
        assert matcher.push("more") == matcher.flush() == ""
    return shown, matcher.found


@pytest.mark.parametrize(
    ("stop", "pieces", "shown", "found"),
    [
        ([], ["a", "b"], "ab", None),
        (["END"], ["one EN", "D two"], "one ", "END"),
        (["END"], ["one EN", "Z two"], "one ENZ two", None),
        (["END"], ["EEN", "END"], "EEN", "END"),
        (["aab"], ["aa", "ab"], "a", "aab"),
        (["\n\n"], ["x\n", "y\n", "\nz"], "x\ny", "\n\n"),
        (["ab", "abc"], ["xabc"], "x", "ab"),
        (["b", "abc"], ["abc"], "a", "b"),
        (["bc", "abc"], ["zab", "c"], "z", "abc"),
        (["x"], ["", "", "x"], "", "x"),
        (["€uro"], ["1 €", "u", "ro"], "1 ", "€uro"),
        (["END"], ["ends with EN"], "ends with EN", None),
    ],
    ids=str,
)
def test_by_hand(stop: list[str], pieces: list[str], shown: str, found: str | None) -> None:
    assert feed(stop, pieces) == (shown, found)


letters = st.text("abc", max_size=12)
stops = st.lists(st.text("abc", min_size=1, max_size=4), max_size=3)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(stop=stops, pieces=st.lists(letters, max_size=6))
def test_nothing_of_a_stop_string_is_shown(stop: list[str], pieces: list[str]) -> None:
    text = "".join(pieces)
    shown, found = feed(stop, pieces)
    assert not any(s in shown for s in stop)
    if found is None:
        assert shown == text
    else:
        assert found in stop and text.startswith(shown + found)
    assert feed(stop, [text]) == feed(stop, list(text)) == (shown, found)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(stop=stops, text=letters)
def test_text_is_held_back_no_longer_than_needed(stop: list[str], text: str) -> None:
    matcher = StopMatcher(stop)
    shown = ""
    for end, letter in enumerate(text, 1):
        shown += matcher.push(letter)
        if matcher.found is not None:
            return
        held = text[len(shown) : end]
        assert held == "" or any(s.startswith(held) for s in stop)


def test_a_single_string_is_one_stop_string() -> None:
    matcher = StopMatcher("END")
    assert matcher.push("D, N and E") == "D, N and "
    assert matcher.push("ND") == "" and matcher.found == "END"


@pytest.mark.parametrize("stop", ["", [""], ["a", ""]])
def test_an_empty_stop_string(stop: str | list[str]) -> None:
    with pytest.raises(ParameterError, match="empty"):
        StopMatcher(stop)
