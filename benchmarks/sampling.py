"""Microseconds that choosing one token takes, for several options and two vocabularies.

    chrt -f 10 python benchmarks/sampling.py

Method: rows of normally distributed logits, whose deviations are those of SmolLM2 (49,152 tokens, 3.5) and of
Gemma-3-270m (262,144 tokens, 5.0) on English prose; their nuclei of 0.9 hold some hundred tokens. One sampler per set
of options, with 64 tokens remembered. Each figure is of the whole Python call, `sampler.sample(row)`:

warm: the row and the sampler's own memory are in the caches; the least of all repetitions: what the work costs.
cold: between two calls 64 MiB are read, as a model's weights are between two tokens, and only the row is read again, as
the model writes it last; the median.

`chrt -f 10` keeps other work off the processor; leave it out on a machine of your own, or where it is not allowed.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pyggml.sampling import DryBreakers, Sampler, SamplingParams, logprobs

Floats = npt.NDArray[np.float32]

VOCABULARIES = ((49_152, 3.5), (262_144, 5.0))
CHAINS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "default (top_k 40, top_p 0.9)": {},
    "... with penalties": {"repeat_penalty": 1.1, "presence_penalty": 0.1},
    "... with penalties and DRY": {"repeat_penalty": 1.1, "dry_multiplier": 0.8},
    "... with a mask": {},
    "llama.cpp's (top_k 40, top_p 0.95, min_p 0.05)": {"top_p": 0.95, "min_p": 0.05},
    "top_k 1000": {"top_k": 1000},
    "top_p 0.9 alone": {"top_k": 0},
    "min_p 0.05 alone": {"top_k": 0, "top_p": 1.0, "min_p": 0.05},
    "typical_p 0.9 alone": {"top_k": 0, "top_p": 1.0, "typical_p": 0.9},
    "top_n_sigma 1 alone": {"top_k": 0, "top_p": 1.0, "top_n_sigma": 1.0},
    "xtc alone": {"top_k": 0, "top_p": 1.0, "xtc_probability": 1.0},
    "temperature alone": {"top_k": 0, "top_p": 1.0},
    "dynamic temperature alone": {"top_k": 0, "top_p": 1.0, "dynatemp_range": 0.5},
    "mirostat 1": {"mirostat": 1},
    "mirostat 2": {"mirostat": 2},
}


def warm(call: Callable[[Floats], object], rows: list[Floats], repeat: int) -> float:
    """The least microseconds of one call, over rows in turn."""
    best = float("inf")
    for _ in range(repeat):
        for row in rows:
            call(row)
            began = time.perf_counter()
            call(row)
            best = min(best, time.perf_counter() - began)
    return best * 1e6


def cold(call: Callable[[Floats], object], rows: list[Floats], repeat: int) -> float:
    """The median of microseconds of one call, after other memory has passed through the caches."""
    weights = np.ones(8 << 20, np.float64)
    taken = []
    for _ in range(repeat):
        for row in rows:
            weights.sum()
            row.sum()
            began = time.perf_counter()
            call(row)
            taken.append(time.perf_counter() - began)
    return float(np.median(taken)) * 1e6


def calls(n: int) -> dict[str, Callable[[Floats], object]]:
    """What is measured, by name."""
    rng = np.random.default_rng(1)
    mask = rng.integers(-(2**31), 2**31, (n + 31) // 32).astype(np.int32)
    found: dict[str, Callable[[Floats], object]] = {}
    for name, options in CHAINS.items():
        sampler = Sampler(SamplingParams(seed=1, **options), breakers=DryBreakers([(10,), (58,)]))
        sampler.accept(rng.integers(0, n, 64))
        if "mask" in name:
            found[name] = lambda row, sampler=sampler: sampler.sample(row, mask=mask)  # type: ignore[misc]
        else:
            found[name] = sampler.sample
    found["logprobs, top 20 (no draw)"] = lambda row: logprobs(row, 7, top=20)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=10, help="rounds over eight rows (default: 10)")
    repeat = parser.parse_args().repeat
    print("| options | " + " | ".join(f"{n:,} warm | cold" for n, _ in VOCABULARIES) + " |")
    print("|---|" + "--:|--:|" * len(VOCABULARIES))
    table: dict[str, list[str]] = {}
    for n, deviation in VOCABULARIES:
        rng = np.random.default_rng(0)
        rows = [(rng.normal(size=n) * deviation).astype(np.float32) for _ in range(8)]
        for name, call in calls(n).items():
            figures = [f"{warm(call, rows, repeat):.1f}", f"{cold(call, rows, repeat):.1f}"]
            table[name] = table.get(name, []) + figures
    for name, row in table.items():
        print(f"| {name} | " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
