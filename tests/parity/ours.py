"""Measure how far pyggml is from llama.cpp: the second table in README.md.

    PYGGML_LLAMA_LIB=.../libllama.so python -m tests.parity.ours smollm2=PATH.gguf gemma3-270m=PATH.gguf

Both compute the recorded positions of all prompts with the same settings, over the full vocabulary; pyggml does twice:
with ggml's own CPU kernels (``GGML_CPU_UPSTREAM_KERNELS``), and with those of ``patches/``. The last two columns:
mean distance from the float32 computation, over the recorded sample of the vocabulary.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from pyggml.engine import Engine, EngineConfig
from pyggml.tensor import DType

from .goldens import load_goldens
from .llamacpp_oracle import Logits, Oracle, RunConfig
from .variation import BASE, all_rows, distance

Q8_0 = replace(BASE, type_k="q8_0", type_v="q8_0")
NOT_ROTATED = "q8_0 cache, theirs not rotated"
SETTINGS: Mapping[str, RunConfig] = {
    "flash attention": BASE,
    "flash attention off": replace(BASE, flash=False),
    "q8_0 cache": Q8_0,
    NOT_ROTATED: Q8_0,
}
"""llama.cpp turns keys and values by a Hadamard matrix before it quantizes them, unless told otherwise."""
KERNELS = {"ggml's": True, "pyggml's": False}
"""Name of the kernels, whether they are upstream's."""


def choose_kernels(upstream: bool) -> None:
    """Runs first in a child process; ggml looks once."""
    if upstream:
        os.environ["GGML_CPU_UPSTREAM_KERNELS"] = "1"
    else:
        os.environ.pop("GGML_CPU_UPSTREAM_KERNELS", None)


def our_rows(path: Path, name: str, config: RunConfig) -> Logits:
    """What `all_rows` asks of llama.cpp, computed by pyggml."""
    options = EngineConfig(
        n_ctx=config.n_ctx,
        n_batch=config.n_ubatch,
        n_threads=config.n_threads,
        flash_attn=config.flash,
        type_k=DType[config.type_k.upper()],
        type_v=DType[config.type_v.upper()],
    )
    with Engine(path, options) as engine:
        rows = []
        for case in load_goldens(name).cases:
            rows.append(engine.logits(case.prompt_ids.tolist(), outputs=case.positions))
        return np.concatenate(rows)


def their_rows(oracle: Oracle, name: str, title: str) -> Logits:
    """What llama.cpp computes in the setting of that title."""
    if title == NOT_ROTATED:
        os.environ["LLAMA_ATTN_ROT_DISABLE"] = "1"
    try:
        return all_rows(oracle, load_goldens(name), SETTINGS[title])
    finally:
        os.environ.pop("LLAMA_ATTN_ROT_DISABLE", None)


def from_exact(name: str, rows: Logits) -> float:
    """Mean distance of rows, (positions, n_vocab), from the float32 computation."""
    cases = load_goldens(name).cases
    exact = np.stack([case.exact_logits[position] for case in cases for position in case.positions])
    return float(np.abs(rows[:, cases[0].sample_ids] - exact).mean())


def table(name: str, path: Path) -> list[str]:
    """The Markdown table of one model, heading included."""
    lines = [
        f"### {name}",
        "",
        "| kernels | setting | max | 99 % below | mean | margin moves | same best id | their error | our error |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    with Oracle(path) as oracle:
        theirs = {title: their_rows(oracle, name, title) for title in SETTINGS}
    for kernels, upstream in KERNELS.items():
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn, initializer=choose_kernels, initargs=(upstream,)) as child:
            for title, config in SETTINGS.items():
                ours = child.submit(our_rows, path, name, config).result()
                errors = f"{from_exact(name, theirs[title]):.4f} | {from_exact(name, ours):.4f}"
                lines.append(f"| {kernels} {distance(theirs[title], ours).row(title)} {errors} |")
                print(lines[-1], file=sys.stderr, flush=True)
    return [*lines, ""]


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
