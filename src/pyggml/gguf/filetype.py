"""Names of ``general.file_type``: the mix of tensor types of a file (llama.cpp's ``llama_ftype``)."""

from collections import Counter
from typing import Final

from pyggml.gguf.reader import GGUFFile

__all__ = ["file_type_name", "parameter_count"]

_NAMES: Final = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4",
}


def file_type_name(file: GGUFFile) -> str:
    """The quantization of a model, e.g. ``Q4_K_M``.

    Where ``general.file_type`` is absent or unknown, the tensor type that takes most of the bytes;
    ``unknown`` for a file without tensors.
    """
    stored = file.metadata.get("general.file_type")
    if isinstance(stored, int) and stored in _NAMES:
        return _NAMES[stored]
    n_bytes = Counter[str]()
    for info in file.tensors.values():
        n_bytes[info.type.name] += info.n_bytes
    return n_bytes.most_common(1)[0][0] if n_bytes else "unknown"


def parameter_count(file: GGUFFile) -> int:
    """The number of elements of all tensors."""
    return sum(info.n_elements for info in file.tensors.values())
