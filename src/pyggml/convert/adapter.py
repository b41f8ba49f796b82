"""LoRA adapters of PEFT (Hu et al. 2021) to GGUF adapters, as llama.cpp reads them."""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from pyggml.convert.checkpoint import read_json
from pyggml.convert.gemma3 import GEMMA3_NAMES
from pyggml.convert.llama import LLAMA_NAMES, interleave
from pyggml.convert.safetensors import SafetensorsFile
from pyggml.errors import ModelError, UnsupportedArchitectureError
from pyggml.gguf import GGMLType, GGUFFile, GGUFWriter, ModelMetadata, ValueType

__all__ = ["convert_adapter"]

_NAMES: Final[Mapping[str, tuple[tuple[str, str], ...]]] = MappingProxyType(
    {"gemma3": GEMMA3_NAMES, "llama": LLAMA_NAMES}
)
_TENSOR: Final = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\.(?:lora_(?P<half>[AB])(?:\.default)?\.weight|"
    r"lora_embedding_(?P<half_embedding>[AB])(?:\.default)?)"
)
_EMBEDDING: Final = "token_embd.weight"
# what changes the mathematics of an adapter, and is not in the format
_REFUSED: Final = ("use_dora", "fan_in_fan_out", "lora_bias", "layer_replication", "alora_invocation_tokens",
                   "modules_to_save", "trainable_token_indices", "megatron_config")  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Scales:
    """How strong each module's product counts."""

    alpha: float
    alphas: Mapping[str, float]
    rank_stabilized: bool

    def multiplier(self, module: str, rank: int) -> float:
        """What the format's ``alpha / rank`` must be multiplied with for this module."""
        own = next((value for key, value in self.alphas.items() if re.fullmatch(f"(.*\\.)?{key}", module)), self.alpha)
        return (own / self.alpha) * (math.sqrt(rank) if self.rank_stabilized else 1.0)


def convert_adapter(source: str | Path, destination: str | Path, *, base: GGUFFile, name: str | None = None) -> None:
    """Convert a folder with ``adapter_config.json`` and ``*.safetensors``.

    Args:
        source: The folder.
        destination: The file to make, atomically.
        base: The model that it is for: it gives the architecture and the shapes.
        name: ``general.name``; None: the name of the folder.

    Raises:
        ModelError: the folder is incomplete, is another kind of adapter, or does not fit the model.
        UnsupportedArchitectureError: there is no conversion for adapters of this architecture.
    """
    folder = Path(source)
    meta = ModelMetadata(base)
    if meta.architecture not in _NAMES:
        raise UnsupportedArchitectureError(
            f"{folder}: adapters for {meta.architecture!r} cannot be converted; those for {', '.join(_NAMES)} can"
        )
    scales = _read_config(folder)
    writer = GGUFWriter(destination, architecture=meta.architecture)
    writer.add("general.type", "adapter")
    writer.add("general.name", name or folder.absolute().name)
    writer.add("adapter.type", "lora")
    writer.add("adapter.lora.alpha", scales.alpha, type=ValueType.FLOAT32)
    with ExitStack() as stack:
        files = [stack.enter_context(SafetensorsFile(path)) for path in sorted(folder.glob("*.safetensors"))]
        if not files:
            raise ModelError(f"{folder}: has no *.safetensors")
        for module, a, b in _pairs(folder, files):
            target = _target(folder, module, meta.architecture)
            _add_pair(folder, writer, base, target, a, b * np.float32(scales.multiplier(module, b.shape[1])))
    writer.write()


def _read_config(folder: Path) -> _Scales:
    path = folder / "adapter_config.json"
    config = read_json(path)
    if str(config.get("peft_type", "LORA")).upper() != "LORA":
        raise ModelError(f"{path}: adapters of the type {config['peft_type']!r} are not supported, LORA is")
    for key in _REFUSED:
        if config.get(key):
            raise ModelError(f"{path}: {key} is set; GGUF adapters have no such thing")
    if config.get("bias", "none") != "none":
        raise ModelError(f"{path}: bias is {config['bias']!r}; GGUF adapters hold no biases")
    alphas = config.get("alpha_pattern") or {}
    if not isinstance(alphas, Mapping):
        raise ModelError(f"{path}: alpha_pattern is no object")
    if spelled := [key for key in alphas if not re.fullmatch(r"[\w.]+", key)]:
        raise ModelError(f"{path}: alpha_pattern: {spelled[0][:80]!r} is no plain name of a module")
    alpha = _positive(path, "lora_alpha", config.get("lora_alpha"))
    checked = {re.escape(key): _positive(path, "alpha_pattern", value) for key, value in alphas.items()}
    return _Scales(alpha, checked, config.get("use_rslora") is True)


def _positive(path: Path, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise ModelError(f"{path}: {key} is {str(value)[:40]}, a positive number is needed")
    return float(value)


def _pairs(folder: Path, files: list[SafetensorsFile]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Module, ``A (rank, n_in)`` and ``B (n_out, rank)``."""
    halves: dict[str, dict[str, np.ndarray]] = {}
    for file in files:
        for name, info in file.tensors.items():
            if name.endswith(".base_layer.weight"):
                continue  # PEFT saves the model's own embedding beside an adapter of it
            match = _TENSOR.fullmatch(name)
            if match is None:
                raise ModelError(f"{file.path}: tensor {name[:200]!r} is neither lora_A nor lora_B of a module")
            if info.dtype not in ("F16", "BF16", "F32", "F64") or len(info.shape) != 2 or 0 in info.shape:
                raise ModelError(f"{file.path}: tensor {name!r} is no matrix of floats")
            half = match["half"] or match["half_embedding"]
            found = halves.setdefault(match["module"], {})
            if half in found:
                raise ModelError(f"{file.path}: tensor {name!r} is there twice")
            found[half] = file.numpy(name).astype(np.float32)
            if not np.isfinite(found[half]).all():
                raise ModelError(f"{file.path}: tensor {name!r} holds values that are not finite")
    if not halves:
        raise ModelError(f"{folder}: the adapter holds no tensors")
    for module, found in halves.items():
        if len(found) != 2 or found["A"].shape[0] != found["B"].shape[1]:
            raise ModelError(f"{folder}: {module!r} lacks lora_A or lora_B, or they share no rank")
        yield module, found["A"], found["B"]


def _target(folder: Path, module: str, architecture: str) -> str:
    name = f"{module}.weight".replace("language_model.model.", "model.").replace("model.language_model.", "model.")
    for pattern, target in _NAMES[architecture]:
        if match := re.fullmatch(pattern, name):
            return match.expand(target)
    raise ModelError(f"{folder}: it is not known what the adapter's module {module[:200]!r} is for")


def _add_pair(folder: Path, writer: GGUFWriter, base: GGUFFile, target: str, a: np.ndarray, b: np.ndarray) -> None:
    meta, info = ModelMetadata(base), base.tensors.get(target)
    if info is None:
        raise ModelError(f"{folder}: the adapter changes {target!r}, which the model does not have")
    expected = info.shape if target != _EMBEDDING else info.shape[::-1]
    if (a.shape[1], b.shape[0]) != expected:
        raise ModelError(
            f"{folder}: the adapter is for a {target!r} of {[b.shape[0], a.shape[1]]}; "
            f"the model's has {list(info.numpy_shape)}"
        )
    for suffix, key in (("attn_q.weight", "attention.head_count"), ("attn_k.weight", "attention.head_count_kv")):
        if meta.architecture == "llama" and target.endswith(suffix):
            n_head = meta.get_int(key, default=meta.get_int("attention.head_count"))
            if n_head < 1 or b.shape[0] % (2 * n_head):
                raise ModelError(f"{meta.path}: {b.shape[0]} rows of {target!r} are no {n_head} heads")
            b = interleave(b, n_head=n_head)
    lookup = target == _EMBEDDING
    for half, matrix in (("lora_a", a.T if lookup else a), ("lora_b", b)):
        data = np.ascontiguousarray(matrix, np.float32)
        writer.add_tensor(f"{target}.{half}", data, type=GGMLType.F32, shape=data.shape[::-1])
