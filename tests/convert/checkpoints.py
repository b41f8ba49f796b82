"""Small model folders in the layout of Hugging Face, with random weights."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_DTYPES = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64", "int16": "I16"}
_DTYPES |= {"uint8": "U8", "bool": "BOOL"}

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world", "##s", "!", "[unused0]", "["]

CONFIG = {
    "architectures": ["BertModel"],
    "hidden_act": "gelu",
    "hidden_size": 16,
    "intermediate_size": 24,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 12,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "vocab_size": 13,
}


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A safetensors file."""
    header, start = {}, 0
    for name, array in arrays.items():
        end = start + array.nbytes
        header[name] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header).encode()
    return b"".join([struct.pack("<Q", len(text)), text, *(array.tobytes() for array in arrays.values())])


def bert_weights(config: Mapping[str, Any], *, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights under the names of the original checkpoints."""
    rng = np.random.default_rng(seed)
    d, f = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], d),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], d),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], d),
        "embeddings.LayerNorm.weight": (d,),
        "embeddings.LayerNorm.bias": (d,),
    }
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        for name, rows, columns in (
            ("attention.self.query", d, d),
            ("attention.self.key", d, d),
            ("attention.self.value", d, d),
            ("attention.output.dense", d, d),
            ("intermediate.dense", f, d),
            ("output.dense", d, f),
        ):
            shapes[f"{layer}.{name}.weight"] = (rows, columns)
            shapes[f"{layer}.{name}.bias"] = (rows,)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{layer}.{name}.weight"] = (d,)
            shapes[f"{layer}.{name}.bias"] = (d,)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    # a buffer and a head that the conversion leaves out
    weights["embeddings.position_ids"] = np.arange(4, dtype=np.int64)[None]
    weights["pooler.dense.weight"] = np.zeros((d, d), np.float32)
    return weights


def write_bert(
    folder: Path,
    *,
    config: Mapping[str, Any] | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
    words: list[str] | None = None,
    pooling: str | None = "pooling_mode_mean_tokens",
) -> Path:
    """A folder that can be converted."""
    folder.mkdir(exist_ok=True)
    settings = {**CONFIG, **(config or {})}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "vocab.txt").write_text("".join(f"{w}\n" for w in words or WORDS), "utf-8")
    data = bert_weights({**CONFIG}) if weights is None else weights
    (folder / "model.safetensors").write_bytes(pack(data))
    if pooling is not None:
        (folder / "1_Pooling").mkdir(exist_ok=True)
        modes = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False, pooling: True}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    return folder
