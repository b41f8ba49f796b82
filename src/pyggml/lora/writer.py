"""Writes adapters."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pyggml.errors import ModelError
from pyggml.gguf import GGMLType, GGUFWriter, ValueType

from .adapter import EMBEDDING

__all__ = ["write_adapter"]

Matrix = npt.NDArray[np.floating]


def write_adapter(
    path: str | Path,
    pairs: Mapping[str, tuple[Matrix, Matrix]],
    *,
    architecture: str,
    alpha: float,
    name: str = "",
    dtype: GGMLType = GGMLType.F32,
) -> None:
    """Write a LoRA adapter that llama.cpp reads too.

    Args:
        path: the file to make, atomically.
        pairs: by the name of the model's tensor ``A (rank, n_in)`` and ``B (n_out, rank)`` in numpy order, as training
            frameworks keep them. (For ``token_embd.weight``: ``n_in`` is the vocabulary, ``n_out`` the embedding.)
        architecture: ``general.architecture`` of the model.
        alpha: the scale times the rank; 0: a scale of 1.
        name: ``general.name``.
        dtype: F32 or F16.

    Raises:
        ModelError: two matrices share no rank, or another ``dtype``.
        OSError: the file cannot be written.
    """
    if dtype not in (GGMLType.F32, GGMLType.F16):
        raise ModelError(f"{path}: an adapter is written as F32 or F16, not as {dtype.name}")
    writer = GGUFWriter(path, architecture=architecture)
    writer.add("general.type", "adapter")
    if name:
        writer.add("general.name", name)
    writer.add("adapter.type", "lora")
    writer.add("adapter.lora.alpha", float(alpha), type=ValueType.FLOAT32)
    for target, (a, b) in pairs.items():
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
            raise ModelError(f"{path}: {target!r}: A {a.shape} must be (rank, n_in) and B {b.shape} (n_out, rank)")
        numbers = np.float32 if dtype is GGMLType.F32 else np.float16
        writer.add_tensor(f"{target}.lora_a", np.ascontiguousarray(a.T if target == EMBEDDING else a, numbers))
        writer.add_tensor(f"{target}.lora_b", np.ascontiguousarray(b, numbers))
    writer.write()
