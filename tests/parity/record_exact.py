"""Record float32 logits of the dequantised weights, computed by transformers, at the recorded prompts and positions.

    python -m tests.parity.record_exact smollm2=PATH.gguf gemma3-270m=PATH.gguf    # after tests.parity.record

No activation is quantized and nothing is f16 here, so this is where every implementation should be near:
the distance of llama.cpp from it (README.md) is the measure for the distance of ours.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from .goldens import DATA, Floats
from .record import sha256_of, write


def load(path: Path) -> Any:
    """The model of a GGUF file with its weights dequantised to float32."""
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        str(path.parent),
        gguf_file=path.name,
        dtype=torch.float32,
        local_files_only=True,
        attn_implementation="eager",
    )
    return model.eval()


def rows_of(model: Any, ids: npt.NDArray[Any], positions: npt.NDArray[Any]) -> Floats:
    """Logits at `positions` of the prompt `ids`, numpy shape (positions, n_vocab)."""
    prompt = torch.from_numpy(ids.astype(np.int64))[None]
    with torch.inference_mode():
        hidden = model.model(input_ids=prompt, use_cache=False).last_hidden_state[0]
        logits = model.lm_head(hidden[positions.tolist()])
    found: Floats = logits.numpy().astype(np.float32)
    return found


def record_model(name: str, path: Path) -> Path:
    """Write data/NAME-exact.npz: per case the logits at the sampled ids and the best id of each position."""
    model = load(path)
    arrays = {}
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as recorded:
        for case in [key.removesuffix("/positions") for key in recorded.files if key.endswith("/positions")]:
            rows = rows_of(model, recorded[f"{case}/prompt_ids"], recorded[f"{case}/positions"])
            arrays[f"{case}/logits"] = rows[:, recorded["sample_ids"]]
            arrays[f"{case}/best_id"] = rows.argmax(axis=1).astype(np.int32)
    metadata = {
        "model_file_sha256": sha256_of(path),
        "made_by": {"torch": torch.__version__, "transformers": transformers.__version__},
        "run": {"attention": "eager", "dtype": "float32", "weights": "dequantised"},
    }
    return write(f"{name}-exact", metadata, arrays)


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
