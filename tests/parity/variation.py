"""Measure how far llama.cpp is from itself: the table in README.md.

    PYGGML_LLAMA_LIB=.../libllama.so python -m tests.parity.variation smollm2=PATH.gguf gemma3-270m=PATH.gguf

The recorded run (2 threads, ubatch 512, flash attention on, f16 cache, repacked weights) is compared with
runs that differ in one setting, over the full vocabulary at the recorded positions of all prompts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .goldens import Goldens, load_goldens
from .llamacpp_oracle import Ids, Logits, Oracle, RunConfig, top_ids
from .record import N_CTX

BASE = RunConfig(n_ctx=N_CTX)
VARIANTS: tuple[tuple[str, RunConfig, bool], ...] = (
    ("again, nothing changed", BASE, True),
    ("1 thread", replace(BASE, n_threads=1), True),
    ("ubatch 64", replace(BASE, n_ubatch=64), True),
    ("ubatch 1 (token by token)", replace(BASE, n_ubatch=1), True),
    ("whole cache for window layers", replace(BASE, swa_full=True), True),
    ("flash attention off", replace(BASE, flash=False), True),
    ("flash attention off, f32 cache", replace(BASE, flash=False, type_k="f32", type_v="f32"), True),
    ("f32 cache", replace(BASE, type_k="f32", type_v="f32"), True),
    ("weights not repacked", BASE, False),
    ("q8_0 cache", replace(BASE, type_k="q8_0", type_v="q8_0"), True),
    ("q4_0 cache", replace(BASE, type_k="q4_0", type_v="q4_0"), True),
)
"""Name, settings, repacked weights."""


@dataclass(frozen=True, kw_only=True)
class Distance:
    """Distance of one run from the recorded one."""

    maximum: float
    mean: float
    p99: float
    margin: float
    """Largest change of the gap between the two tokens that were best and second best in the recorded run."""
    same_best: int
    positions: int

    def row(self, name: str) -> str:
        """As a line of a Markdown table."""
        return (
            f"| {name} | {self.maximum:.4f} | {self.p99:.4f} | {self.mean:.5f} "
            f"| {self.margin:.4f} | {self.same_best}/{self.positions} |"
        )


def all_rows(oracle: Oracle, goldens: Goldens, config: RunConfig) -> Logits:
    """Logits at the recorded positions of all cases, numpy shape (positions, n_vocab)."""
    return np.concatenate([oracle.logits(case.prompt_ids, case.positions, config=config) for case in goldens.cases])


def distance(base: Logits, other: Logits) -> Distance:
    """How far `other` is from `base`, both (positions, n_vocab)."""
    gaps = np.abs(other - base)
    pairs = np.stack([top_ids(row, 2) for row in base])
    return Distance(
        maximum=float(gaps.max()),
        mean=float(gaps.mean()),
        p99=float(np.quantile(gaps[:, ::16], 0.99)),
        margin=float(np.abs(_margins(other, pairs) - _margins(base, pairs)).max()),
        same_best=int((base.argmax(axis=1) == other.argmax(axis=1)).sum()),
        positions=len(base),
    )


def _margins(rows: Logits, pairs: Ids) -> Logits:
    """Per row, the logit of the first id of its pair minus that of the second."""
    values = np.take_along_axis(rows, pairs, axis=1)
    margins: Logits = values[:, 0] - values[:, 1]
    return margins


def table(name: str, path: Path) -> list[str]:
    """The Markdown table of one model, heading included."""
    goldens = load_goldens(name)
    lines = [
        f"### {name}",
        "",
        "| changed | max | 99 % below | mean | margin moves by up to | same best id |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    with Oracle(path) as oracle, Oracle(path, repack=False) as plain:
        base = all_rows(oracle, goldens, BASE)
        for title, config, repack in VARIANTS:
            rows = all_rows(oracle if repack else plain, goldens, config)
            lines.append(distance(base, rows).row(title))
            print(lines[-1], file=sys.stderr, flush=True)
    spread = f"(logits have a standard deviation of {base.std(axis=1).mean():.2f} over the vocabulary)"
    return [*lines, "", spread, ""]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one table per model given as NAME=PATH."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", metavar="NAME=PATH")
    for model in parser.parse_args(arguments).models:
        name, _, path = model.partition("=")
        if not path:
            parser.error(f"{model}: expected NAME=PATH")
        print("\n".join(table(name, Path(path))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
