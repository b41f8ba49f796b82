"""Record sentence embeddings that transformers computes from a folder in Hugging Face's layout.

    python -m tests.parity.record_embeddings FOLDER    # writes data/all-minilm-l6-v2.npz

Method: Reimers and Gurevych, Sentence-BERT (2019): mean of the last hidden states over the text's tokens,
[CLS] and [SEP] included, scaled to unit length. Computed in float32, one sentence at a time (no padding).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers

from .goldens import Floats
from .record import sha256_of, write
from .texts import sentences

NAME = "all-minilm-l6-v2"


def tokenize(folder: Path, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text with [CLS] and [SEP], neither padded nor cut."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return [list(tokenizer.encode(text).ids) for text in texts]


def embed(folder: Path, batches: Sequence[Sequence[int]]) -> Floats:
    """Unit-length embeddings, numpy shape (len(batches), hidden)."""
    model: Any = transformers.AutoModel.from_pretrained(
        str(folder), dtype=torch.float32, local_files_only=True, attn_implementation="eager"
    )
    model.eval()
    rows = []
    with torch.inference_mode():
        for ids in batches:
            hidden = model(input_ids=torch.tensor([list(ids)])).last_hidden_state[0]
            mean = hidden.mean(dim=0)
            rows.append((mean / mean.norm()).numpy())
    return np.stack(rows).astype(np.float32)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file and say how long the texts were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args(arguments).folder
    texts = sentences()
    ids = tokenize(folder, texts)
    metadata = {
        "model_file_sha256": sha256_of(folder / "model.safetensors"),
        "made_by": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
        "run": {"pooling": "mean", "normalised": True, "attention": "eager", "dtype": "float32"},
        "sentences": texts,
    }
    arrays = {
        "token_ids": np.concatenate([np.asarray(part, np.int32) for part in ids]),
        "token_counts": np.asarray([len(part) for part in ids], np.int32),
        "embeddings": embed(folder, ids),
    }
    written = write(NAME, metadata, arrays)
    print(f"{written}: {written.stat().st_size} bytes, {[len(part) for part in ids]} tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())
