"""What a sampler remembers and what it is given: random numbers, recent tokens, clones, masks, bias."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyggml.errors import ComputeError, ParameterError
from pyggml.sampling import DryBreakers, Sampler, SamplingParams

from .reference import dried, penalized, prepared

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.int32]

SMALL = np.array([1.5, -0.5, 3.0, 2.0, 0.25, -2.0, 2.5, 0.0], np.float32)
PLAIN: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "temperature": 1.0}


def words(*allowed: int, n: int) -> Words:
    out = np.zeros((n + 31) // 32, np.uint32)
    for token in allowed:
        out[token // 32] |= np.uint32(1) << np.uint32(token % 32)
    return out.view(np.int32)


@pytest.mark.parametrize("seed", [0, 1, 2**40, 12345678901234567890123])
def test_random_numbers_are_those_of_numpy(seed: int) -> None:
    """Two equal tokens: the second is drawn when the number is half or more; sixteen: it says which."""
    numbers = np.random.Generator(np.random.PCG64(seed))
    two, sixteen = np.zeros(2, np.float32), np.zeros(16, np.float32)
    sampler = Sampler(SamplingParams(seed=seed, **PLAIN))
    for _ in range(200):
        assert sampler.sample(two) == int(numbers.random() * 2)
        assert sampler.sample(sixteen) == int(numbers.random() * 16)


@pytest.mark.parametrize("chosen", [{}, {"xtc_probability": 0.5}, {"mirostat": 2}, {"repeat_penalty": 1.3}], ids=str)
def test_a_clone_goes_on_alike(chosen: dict[str, Any]) -> None:
    logits = (np.random.default_rng(0).normal(size=800) * 2).astype(np.float32)
    sampler = Sampler(SamplingParams(seed=9, **(PLAIN | chosen)))
    sampler.accept([1, 2, 3])
    for _ in range(5):
        sampler.accept((sampler.sample(logits),))
    clone = sampler.clone()
    runs = []
    for one in (sampler, clone):
        drawn = []
        for _ in range(40):
            drawn.append(one.sample(logits))
            one.accept((drawn[-1],))
        runs.append(drawn)
    assert runs[0] == runs[1]
    del sampler
    assert 0 <= clone.sample(logits) < 800  # owns what it needs


def test_distribution_changes_nothing() -> None:
    logits = (np.random.default_rng(0).normal(size=300) * 2).astype(np.float32)
    for chosen in ({"xtc_probability": 0.5, "xtc_threshold": 0.01}, {"mirostat": 1}, {"mirostat": 2}):
        looked, plain = (Sampler(SamplingParams(seed=2, **(PLAIN | chosen))) for _ in range(2))
        for _ in range(30):
            ids, _ = looked.distribution(logits)
            token = looked.sample(logits)
            assert token in ids
            assert token == plain.sample(logits)


def test_xtc_acts_as_often_as_asked() -> None:
    sampler = Sampler(SamplingParams(seed=1, xtc_probability=0.3, xtc_threshold=0.1, **PLAIN))
    sizes = []
    for _ in range(3000):
        sizes.append(len(sampler.distribution(SMALL)[0]))
        sampler.sample(SMALL)
    assert set(sizes) == {6, 8}  # three tokens have a share of 0.1
    assert sizes.count(6) / 3000 == pytest.approx(0.3, abs=0.04)


CHANCES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "typical": {"typical_p": 0.8},
    "sigma": {"top_n_sigma": 2.0},
    "mixed": {"top_k": 900, "top_p": 0.98, "min_p": 0.003, "temperature": 1.3},
    "dynamic": {"dynatemp_range": 0.8, "top_k": 50},
    "biased": {"logit_bias": {5: 4.0, 1025: 5.0, 7: -math.inf}, "repeat_penalty": 1.4},
}


@pytest.mark.parametrize("name", CHANCES)
def test_frequencies_in_a_large_vocabulary(name: str) -> None:
    """Pearson's test of 20,000 draws, rare tokens taken together; the draw finds its place among several chunks."""
    logits = (np.random.default_rng(7).normal(size=3000) * 1.5).astype(np.float32)
    sampler = Sampler(SamplingParams(seed=3, **(PLAIN | CHANCES[name])))
    sampler.accept([5, 5, 6])
    ids, probs = sampler.distribution(logits)
    n = 20_000
    counts = np.bincount([sampler.sample(logits) for _ in range(n)], minlength=logits.size)
    assert counts[ids].sum() == n
    often = probs * n >= 5
    observed = np.append(counts[ids[often]], counts[ids[~often]].sum())
    expected = np.append(probs[often], probs[~often].sum()) * n
    observed, expected = observed[expected > 0], expected[expected > 0]
    chi2, freedom = float(((observed - expected) ** 2 / expected).sum()), len(expected) - 1
    assert chi2 <= freedom + 5 * math.sqrt(2 * freedom)


def test_a_mask_forbids() -> None:
    rng = np.random.default_rng(1)
    for n in (1, 31, 32, 33, 2000):
        logits = rng.normal(size=n).astype(np.float32)
        allowed = sorted(set(rng.integers(0, n, 5).tolist()))
        mask = words(*allowed, n=n)
        for chosen in (PLAIN, {"temperature": 0}, {"top_k": 3}, {"mirostat": 2}, {"repeat_penalty": 2.0}):
            sampler = Sampler(SamplingParams(seed=1, **chosen))
            sampler.accept(range(3))
            assert {sampler.sample(logits, mask=mask) for _ in range(60)} <= set(allowed)
        best = max(allowed, key=lambda token: logits[token])
        assert Sampler(SamplingParams(temperature=0)).sample(logits, mask=mask) == best


def test_what_is_forbidden_does_not_matter() -> None:
    row = SMALL.copy()
    row[[0, 5]] = np.nan, np.inf
    assert Sampler(SamplingParams(temperature=0)).sample(row, mask=words(1, 3, 6, n=8)) == 6
    with pytest.raises(ComputeError, match="NaN"):
        Sampler(SamplingParams()).sample(row, mask=words(0, 1, n=8))
    with pytest.raises(ComputeError, match="infinite"):
        Sampler(SamplingParams()).sample(row, mask=words(5, 1, n=8))


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_nothing_is_allowed(temperature: float) -> None:
    bits_beyond = np.array([~0xFF], np.int32)  # of no token
    for mask in (words(n=8), bits_beyond):
        with pytest.raises(ParameterError, match="forbid every token"):
            Sampler(SamplingParams(temperature=temperature)).sample(SMALL, mask=mask)
    banned = SamplingParams(temperature=temperature, logit_bias={3: -math.inf})
    with pytest.raises(ParameterError, match="forbid every token"):
        Sampler(banned).distribution(SMALL, mask=words(3, n=8))
    assert Sampler(banned).sample(SMALL, mask=words(3, 4, n=8)) == 4


@pytest.mark.parametrize(
    "mask",
    [np.zeros(2, np.int32), np.zeros(0, np.int32), np.zeros((1, 1), np.int32), np.zeros(1, np.int64)],
    ids=["long", "empty", "2-d", "int64"],
)
def test_masks_of_the_wrong_form(mask: npt.NDArray[Any]) -> None:
    with pytest.raises(ParameterError, match="the mask for 8 tokens must be 1 words of int32"):
        Sampler(SamplingParams()).sample(SMALL, mask=mask)


def test_a_mask_with_gaps() -> None:
    with pytest.raises(ParameterError, match="contiguous"):
        Sampler(SamplingParams()).sample(np.zeros(64, np.float32), mask=np.zeros(4, np.int32)[::2])


def test_bias() -> None:
    assert Sampler(SamplingParams(temperature=0, logit_bias={4: 2.8})).sample(SMALL) == 4
    assert Sampler(SamplingParams(temperature=0, logit_bias=[(2, -math.inf), (6, -1)])).sample(SMALL) == 3
    with pytest.raises(ParameterError, match="logit_bias names token 8; the model has 8"):
        Sampler(SamplingParams(logit_bias={8: 1.0})).sample(SMALL)


def test_tokens_may_come_as_anything_with_integers() -> None:
    want = Sampler(SamplingParams(repeat_penalty=1.5, **PLAIN))
    want.accept([2, 2, 6])
    for tokens in ((2, 2, 6), iter([2, 2, 6]), np.array([2, 2, 6]), np.array([2, 0, 2, 0, 6, 0], np.int32)[::2]):
        sampler = Sampler(SamplingParams(repeat_penalty=1.5, **PLAIN))
        sampler.accept(tokens)
        assert sampler.distribution(SMALL)[1].tolist() == want.distribution(SMALL)[1].tolist()
    for bad in ((2**31,), [2**31, 1], ["x"], (None,)):
        with pytest.raises(ParameterError, match="32-bit"):
            want.accept(bad)


tokens = st.lists(st.integers(-1, 9), max_size=60)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    pieces=st.lists(tokens, max_size=5),
    last_n=st.integers(-1, 20),
    n_ctx=st.integers(1, 30),
    dry_last_n=st.integers(-1, 40),
    allowed=st.integers(0, 5),
    breakers=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3), max_size=3),
)
def test_memory(
    pieces: list[list[int]],
    last_n: int,
    n_ctx: int,
    dry_last_n: int,
    allowed: int,
    breakers: list[list[int]],
) -> None:
    """Both memories keep their last tokens, however these arrive; ids outside of the vocabulary count for nobody."""
    p = SamplingParams(
        repeat_penalty=1.2,
        frequency_penalty=0.1,
        repeat_last_n=last_n,
        dry_multiplier=0.7,
        dry_base=1.5,
        dry_penalty_last_n=dry_last_n,
        dry_allowed_length=allowed,
        **PLAIN,
    )
    sampler = Sampler(p, n_ctx=n_ctx, breakers=DryBreakers(breakers))
    recent: list[int] = []
    for piece in pieces:
        sampler.accept(piece)
        recent += piece
    context = recent[-n_ctx:]
    x = SMALL.astype(np.float64)
    x = penalized(x, context if last_n < 0 else recent, p)
    x = dried(x, context if dry_last_n < 0 else recent, p, breakers)
    ids, probs = sampler.distribution(SMALL)
    found = dict(zip(ids.tolist(), probs.tolist(), strict=True))
    want = np.exp(x - x.max()) / np.exp(x - x.max()).sum()
    assert [found[token] for token in range(8)] == pytest.approx(want.tolist(), rel=1e-4, abs=1e-12)


def test_long_repeats_cost_no_more_than_a_float_holds() -> None:
    p = SamplingParams(dry_multiplier=5.0, dry_base=10.0, dry_penalty_last_n=-1, **PLAIN)
    sampler = Sampler(p, n_ctx=4096, breakers=DryBreakers([]))
    sampler.accept([3] * 4096)
    ids, probs = sampler.distribution(SMALL)
    assert 3 not in ids[probs > 0]
    assert prepared(SMALL.astype(np.float64), [3] * 200, p)[3] < -1e100


def test_breakers_of_texts() -> None:
    """A vocabulary of all bytes and a few words."""
    pieces = [bytes([i]) for i in range(256)] + [b"a\n", b"end", b"xq1", b"q123", b"\n\n", "é".encode(), b"q"]

    def encode(text: str) -> list[int]:
        return list(text.encode())

    def of(*texts: str) -> set[tuple[int, ...]]:
        return set(DryBreakers.from_texts(texts, pieces=pieces, encode=encode).sequences)

    assert of("\n") == {(10,), (256,), (260,)}
    assert of("é") == {(0xC3, 0xA9), (261,)}
    assert of("q12") == {
        (259,),  # q123 holds it
        (ord("q"), ord("1"), ord("2")),
        (262, ord("1"), ord("2")),
        (258, ord("2")),  # xq1
    }
    assert of("q12", "\n") == of("q12") | of("\n")
    assert of() == set()


def test_dry_needs_to_know_its_texts() -> None:
    with pytest.raises(ParameterError, match="dry_sequence_breakers"):
        Sampler(SamplingParams(dry_multiplier=0.5))
    Sampler(SamplingParams(dry_multiplier=0.5, dry_sequence_breakers=()))
    Sampler(SamplingParams(dry_multiplier=0.5, dry_penalty_last_n=0))
