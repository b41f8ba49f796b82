"""A small cross-encoder in the layout of Hugging Face, with random weights."""

from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import CONFIG, bert_weights, write_bert

QUERY = "hello worlds"
DOCUMENTS = ["hello!", "world", "hello hello worlds! world", "s hello", "!"]


def write_reranker(folder: Path, *, n_segments: int = 2, n_labels: int = 1, **config: Any) -> Path:
    """A ``BertForSequenceClassification``; matrices hold numbers that float16 keeps."""
    settings = {
        **CONFIG,
        "architectures": ["BertForSequenceClassification"],
        "max_position_embeddings": 32,
        "type_vocab_size": n_segments,
        "model_type": "bert",
        "num_labels": n_labels,
        **config,
    }
    weights = bert_weights(settings, seed=4)
    random = np.random.default_rng(5)
    d = settings["hidden_size"]
    weights["pooler.dense.weight"] = random.normal(0, 0.25, (d, d)).astype(np.float32)
    weights["pooler.dense.bias"] = random.normal(0, 0.25, d).astype(np.float32)
    weights = {f"bert.{name}": array for name, array in weights.items() if "position_ids" not in name}
    weights["classifier.weight"] = random.normal(0, 0.5, (n_labels, d)).astype(np.float32)
    weights["classifier.bias"] = random.normal(0, 0.5, n_labels).astype(np.float32)
    for name, array in weights.items():
        if array.ndim == 2 and "embeddings" not in name:
            factor = 0.5 if "encoder" in name else 1.0
            weights[name] = (factor * array).astype(np.float16).astype(np.float32)
    words = weights["bert.embeddings.word_embeddings.weight"]
    weights["bert.embeddings.word_embeddings.weight"] = words.astype(np.float16).astype(np.float32)
    return write_bert(folder, config=settings, weights=weights, pooling=None)
