"""The cases of llama.cpp's test-sampling, as tables: probabilities in, one sampler, probabilities out."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pyggml.sampling import DryBreakers, Sampler, SamplingParams

OFF: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
FOUR = (0.1, 0.2, 0.3, 0.4)
FALLING = (0.4, 0.3, 0.2, 0.1)
FLAT = (0.2,) * 5
QUARTERS = (0.25,) * 4

# options, probabilities, what is left of them (0: the token is gone, or as good as)
CASES: list[tuple[dict[str, Any], tuple[float, ...], tuple[float, ...]]] = [
    ({"temperature": 1.0}, FOUR, FOUR),
    ({"temperature": 0.0}, FOUR, (0, 0, 0, 1)),
    ({"temperature": 1.0, "dynatemp_range": 0.0, "dynatemp_exponent": 1.0}, FOUR, FOUR),
    ({"temperature": 0.0, "dynatemp_range": 0.0, "dynatemp_exponent": 1.0}, FOUR, (0, 0, 0, 1)),
    ({"top_k": 1}, FOUR, (0, 0, 0, 1)),
    ({"top_k": 3}, FOUR, (0, 0.22222, 0.33333, 0.44444)),
    ({"top_k": 4}, FOUR, FOUR),
    ({"top_k": 0}, FOUR, FOUR),
    ({"top_p": 0.0}, FOUR, (0, 0, 0, 1)),
    ({"top_p": 0.7}, FOUR, (0, 0, 0.428571, 0.571429)),
    ({"top_p": 0.8}, FOUR, (0, 0.22222, 0.33333, 0.44444)),
    ({"top_p": 1.0}, FOUR, FOUR),
    ({"min_p": 0.00}, FOUR, FOUR),
    ({"min_p": 0.24}, FOUR, FOUR),
    ({"min_p": 0.26}, FOUR, (0, 0.2 / 0.9, 0.3 / 0.9, 0.4 / 0.9)),
    ({"min_p": 0.49}, FOUR, (0, 0.2 / 0.9, 0.3 / 0.9, 0.4 / 0.9)),
    ({"min_p": 0.51}, FOUR, (0, 0, 0.3 / 0.7, 0.4 / 0.7)),
    ({"min_p": 0.74}, FOUR, (0, 0, 0.3 / 0.7, 0.4 / 0.7)),
    ({"min_p": 0.76}, FOUR, (0, 0, 0, 1)),
    ({"min_p": 1.00}, FOUR, (0, 0, 0, 1)),
    ({"xtc_probability": 1.0, "xtc_threshold": 0.09}, FALLING, (0, 0, 0, 1)),
    ({"xtc_probability": 1.0, "xtc_threshold": 0.19}, FALLING, (0, 0, 0.2 / 0.3, 0.1 / 0.3)),
    ({"xtc_probability": 1.0, "xtc_threshold": 0.29}, FALLING, (0, 0.3 / 0.6, 0.2 / 0.6, 0.1 / 0.6)),
    ({"xtc_probability": 1.0, "xtc_threshold": 0.39}, FALLING, FALLING),
    ({"xtc_probability": 0.0, "xtc_threshold": 0.09}, FALLING, FALLING),
    ({"typical_p": 0.5}, (0.97, 0.01, 0.01, 0.01), (1, 0, 0, 0)),
    ({"typical_p": 0.5}, (0.4, 0.2, 0.2, 0.2), (0, 1 / 3, 1 / 3, 1 / 3)),
    ({"top_n_sigma": 1.0}, FOUR, (0, 0, 0.428571, 0.571429)),
    ({"top_n_sigma": 0.0}, FOUR, FOUR),
    ({"top_n_sigma": 3.0}, FOUR, FOUR),
]


def distribution(
    probs: tuple[float, ...],
    options: dict[str, Any],
    recent: tuple[int, ...] = (),
    breakers: tuple[tuple[int, ...], ...] = (),
) -> npt.NDArray[np.float64]:
    """What is left of the probabilities, 0 for tokens that are gone."""
    sampler = Sampler(SamplingParams(**(OFF | options)), breakers=DryBreakers(breakers))
    sampler.accept(recent)
    ids, found = sampler.distribution(np.log(np.array(probs, np.float32)))
    out = np.zeros(len(probs))
    out[ids] = found
    return out


@pytest.mark.parametrize(("options", "probs", "want"), CASES, ids=str)
def test_one_sampler(options: dict[str, Any], probs: tuple[float, ...], want: tuple[float, ...]) -> None:
    np.testing.assert_allclose(distribution(probs, options), want, atol=1e-5)


@pytest.mark.parametrize(
    ("recent", "repeat", "both", "want"),
    [
        ((0,), 50.0, 0.0, (0, 0.25, 0.25, 0.25, 0.25)),
        ((0, 1, 2), 50.0, 0.0, (0, 0, 0, 0.5, 0.5)),
        ((0, 1, 2, 0, 0), 50.0, 0.0, (0, 0, 0, 0.5, 0.5)),
        ((0,), 1.0, 5.0, (0.000011, 0.249997, 0.249997, 0.249997, 0.249997)),
        ((0, 1, 2), 1.0, 5.0, (0.000023, 0.000023, 0.000023, 0.499966, 0.499966)),
        ((0, 1, 2, 0, 0), 1.0, 5.0, (0.000000, 0.000023, 0.000023, 0.499977, 0.499977)),
    ],
)
def test_penalties(recent: tuple[int, ...], repeat: float, both: float, want: tuple[float, ...]) -> None:
    options = {"repeat_penalty": repeat, "frequency_penalty": both, "presence_penalty": both}
    np.testing.assert_allclose(
        distribution(FLAT, options | {"repeat_last_n": len(recent)}, recent), want, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("probs", "recent", "want", "multiplier", "allowed", "breakers"),
    [
        (QUARTERS, (0, 1), QUARTERS, 1.0, 2, ()),
        (QUARTERS, (0, 1, 2, 0, 1), (0.296923, 0.296923, 0.109232, 0.296923), 1.0, 2, ()),
        (FLAT, (0, 1, 3, 4, 0, 1), FLAT, 1.0, 2, ((3,),)),
        (FLAT, (0, 1, 2, 0, 1), (0.241818, 0.241818, 0.032727, 0.241818, 0.241818), 2.0, 2, ()),
        (FLAT, (0, 1, 2, 3, 4, 0, 1), FLAT, 1.0, 4, ()),
    ],
)
def test_dry(
    probs: tuple[float, ...],
    recent: tuple[int, ...],
    want: tuple[float, ...],
    multiplier: float,
    allowed: int,
    breakers: tuple[tuple[int, ...], ...],
) -> None:
    options = {"dry_multiplier": multiplier, "dry_base": 1.1, "dry_allowed_length": allowed}
    options["dry_penalty_last_n"] = len(recent)
    np.testing.assert_allclose(distribution(probs, options, recent, breakers), want, atol=1e-5)


N = 10_000  # tokens whose weight is their id


def left(order: str, top_k: int, top_p: float, min_p: float) -> list[range]:
    """Which ids are left after each sampler of the queue: always a range up to the largest id."""
    low, found = 0, []
    for name in order:
        if name == "k":
            low = max(low, N - top_k)
        elif name == "p":
            total = N * (N - 1) // 2 - low * (low - 1) // 2
            target, low, sum_ = math.ceil(np.float32(top_p) * np.float32(total)), N, 0
            while True:
                low -= 1
                sum_ += low
                if sum_ >= target:
                    break
            low = 0 if low == 1 else low  # token 0 has no weight, and is in the set when all are
        else:
            low = max(low, math.floor(min_p * N), 1)
            low = min(low, N - 1)
        found.append(range(low, N))
    return found


@pytest.mark.parametrize(
    ("order", "top_k", "top_p", "min_p"),
    [
        ("k", N, 1.0, 1.0),
        ("k", 1, 1.0, 1.0),
        ("p", N, 1.0, 1.0),
        ("p", N, 0.0, 1.0),
        ("m", N, 1.0, 1.0),
        ("m", N, 1.0, 1e-12),
        ("k", 100, 1.0, 1.0),
        ("p", N, 0.0003, 1.0),
        ("p", N, 0.8, 1.0),
        ("m", N, 1.0, 9997.9 / 9999.0),
        ("m", N, 1.0, 0.1),
        ("kp", 100, 0.8, 0.1),
        ("km", 100, 0.8, 0.1),
        ("pm", 100, 0.8, 0.1),
        ("kpm", 100, 0.8, 0.1),
    ],
)
def test_queue(order: str, top_k: int, top_p: float, min_p: float) -> None:
    """The queues whose order is ours; those in other orders are no chain of ours."""
    with np.errstate(divide="ignore"):
        logits = np.log(np.arange(N, dtype=np.float32))
    options: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0}
    options |= {"top_k": top_k} if "k" in order else {}
    options |= {"top_p": top_p} if "p" in order else {}
    options |= {"min_p": min_p} if "m" in order else {}
    ids, probs = Sampler(SamplingParams(**options)).distribution(logits)
    want = left(order, top_k, top_p, min_p)[-1]
    assert ids.tolist() == [id for id in reversed(want) if id > 0]  # token 0 has no chance
    np.testing.assert_allclose(probs, ids / ids.sum(), rtol=1e-4)
