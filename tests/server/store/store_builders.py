"""Small models on disk, for tests of the store."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pyggml.gguf import GGUFWriter

MakeWheel = Callable[..., Path]


def write_model(path: Path, *, value: float = 1.0, n: int = 1000) -> Path:
    """A valid GGUF file with one tensor of ``n`` float32."""
    writer = GGUFWriter(path, architecture="llama")
    writer.add("general.file_type", 0)
    writer.add_tensor("x.weight", np.full(n, value, np.float32))
    writer.write()
    return path
