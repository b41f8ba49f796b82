"""Small models on disk, for tests of create."""

from pathlib import Path
from typing import Any

import numpy as np

from pyggml.gguf import GGUFWriter


def write_gguf(path: Path, *, seed: int = 1, dtype: Any = np.float16, **metadata: Any) -> Path:
    """A file with the tensors of a tiny llama; ``metadata`` with ``__`` for dots."""
    writer = GGUFWriter(path, architecture=metadata.pop("architecture", "llama"))
    writer.add("general.file_type", {np.float16: 1, np.float32: 0}[dtype])
    for key, value in metadata.items():
        writer.add(key.replace("__", "."), value)
    random = np.random.default_rng(seed)
    writer.add_tensor("token_embd.weight", random.normal(size=(64, 256)).astype(dtype))
    for i in range(2):
        writer.add_tensor(f"blk.{i}.ffn_down.weight", random.normal(size=(256, 512)).astype(dtype))
        writer.add_tensor(f"blk.{i}.attn_norm.weight", random.normal(size=256).astype(np.float32))
    writer.write()
    return path
