"""Record what llama.cpp computes for the prompts of texts.py into data/MODEL.npz.

PYGGML_LLAMA_LIB=.../libllama.so python -m tests.parity.record smollm2=PATH.gguf gemma3-270m=PATH.gguf
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .goldens import DATA, FLASH_CHOICES, Ids
from .llamacpp_oracle import Oracle, RunConfig, top_ids
from .texts import Prompt, prompts

N_GREEDY = 128
N_POSITIONS = 8
N_SAMPLES = 512
N_TOP = 32
SAMPLE_SEED = 20240229
N_CTX = 2048

Arrays = dict[str, npt.NDArray[Any]]


def spread_positions(n_tokens: int) -> list[int]:
    """Up to N_POSITIONS indices spread over a prompt, the first and the last token among them."""
    return sorted({round(x) for x in np.linspace(0, n_tokens - 1, N_POSITIONS).tolist()})


def sample_ids(n_vocab: int) -> Ids:
    """N_SAMPLES different ids, ascending, the same in every recording."""
    chosen = np.random.Generator(np.random.PCG64(SAMPLE_SEED)).choice(n_vocab, N_SAMPLES, replace=False)
    return np.sort(chosen).astype(np.int32)


def sha256_of(path: Path) -> str:
    """Hex digest of a file, so that a recording names the very weights it was made from."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_case(oracle: Oracle, prompt: Prompt, samples: Ids) -> Arrays:
    """Arrays of one prompt, first axis flash attention on, off (goldens.py gives them names and types)."""
    ids = oracle.tokenize(prompt.text, parse_special=prompt.parse_special)
    positions = spread_positions(len(ids))
    rows: dict[str, list[npt.NDArray[Any]]] = {}
    for flash in FLASH_CHOICES:
        config = RunConfig(flash=flash, n_ctx=N_CTX)
        run = oracle.greedy(ids, N_GREEDY, config=config)
        logits = oracle.logits(ids, positions, config=config)
        best = np.stack([top_ids(row, N_TOP) for row in logits])
        found = {
            "greedy_ids": run.ids,
            "runner_up_ids": run.runner_up,
            "greedy_logits": run.top_logit,
            "margins": run.margin,
            "logits": logits[:, samples],
            "top_ids": best,
            "top_values": np.take_along_axis(logits, best, axis=1),
        }
        for field, array in found.items():
            rows.setdefault(field, []).append(array)
    arrays: Arrays = {f"{prompt.name}/{field}": np.stack(parts) for field, parts in rows.items()}
    arrays[f"{prompt.name}/prompt_ids"] = ids
    arrays[f"{prompt.name}/positions"] = np.asarray(positions, np.int32)
    return arrays


def record_model(name: str, path: Path) -> Path:
    """Record every prompt of one model; returns the file written."""
    with Oracle(path) as oracle:
        samples = sample_ids(oracle.n_vocab)
        arrays: Arrays = {"sample_ids": samples}
        for prompt in prompts(name):
            arrays |= record_case(oracle, prompt, samples)
        metadata = {
            "model_file_sha256": sha256_of(path),
            "made_by": oracle.versions,
            "run": {"prefill": "one batch", **_settings()},
            "cases": [
                {"name": prompt.name, "text": prompt.text, "parse_special": prompt.parse_special}
                for prompt in prompts(name)
            ],
        }
    return write(name, metadata, arrays)


def _settings() -> dict[str, Any]:
    """The fields of RunConfig that all runs share."""
    settings = asdict(RunConfig(n_ctx=N_CTX))
    del settings["flash"]
    return settings


def write(name: str, metadata: dict[str, Any], arrays: Arrays) -> Path:
    """Write data/NAME.npz; metadata goes in as UTF-8 JSON."""
    text = json.dumps(metadata, ensure_ascii=False, sort_keys=True)
    path = DATA / f"{name}.npz"
    everything: Arrays = {"metadata": np.frombuffer(text.encode(), np.uint8), **arrays}
    np.savez_compressed(path, allow_pickle=False, **everything)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Record the models given as NAME=PATH."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", metavar="NAME=PATH")
    for model in parser.parse_args(arguments).models:
        name, _, path = model.partition("=")
        if not path:
            parser.error(f"{model}: expected NAME=PATH")
        written = record_model(name, Path(path))
        print(f"{written}: {written.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
