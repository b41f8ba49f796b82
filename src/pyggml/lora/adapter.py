"""One adapter file: what it holds, checked."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

import numpy as np

from pyggml.closing import Closing
from pyggml.errors import ModelError
from pyggml.gguf import GGMLType, GGUFFile, ModelMetadata, TensorInfo
from pyggml.tensor import dequantize

__all__ = ["EMBEDDING", "AdapterPair", "LoraAdapter"]

log = logging.getLogger("pyggml.lora")

EMBEDDING: Final = "token_embd.weight"
"""The one tensor that is looked up instead of multiplied; its ``A`` is stored transposed."""
_TYPES: Final = (GGMLType.F32, GGMLType.F16, GGMLType.BF16, GGMLType.Q8_0)


@dataclass(frozen=True)
class AdapterPair:
    """What an adapter adds to one tensor of the model: ``B A x``, times a scale.

    Attributes:
        target: name of the model's tensor, of ggml shape ``(n_in, n_out)``.
        a: ``(n_in, rank)``; for :data:`EMBEDDING`, of shape ``(n_embd, n_vocab)``, it is ``(rank, n_vocab)``.
        b: ``(rank, n_out)``; for :data:`EMBEDDING` it is ``(rank, n_embd)``.
        factor: ``alpha / rank``, which every scale is multiplied with; 1 when the file gives no alpha.
    """

    target: str
    a: TensorInfo
    b: TensorInfo
    factor: float

    @property
    def rank(self) -> int:
        """The inner dimension."""
        return self.b.shape[0]

    @property
    def target_shape(self) -> tuple[int, int]:
        """The ggml shape that the model's tensor must have."""
        if self.target == EMBEDDING:
            return self.b.shape[1], self.a.shape[1]
        return self.a.shape[0], self.b.shape[1]


class LoraAdapter(Closing):
    """An adapter as llama.cpp's ``convert_lora_to_gguf`` writes it: ``general.type`` ``adapter``, ``adapter.type``
    ``lora``, ``adapter.lora.alpha``, and for each tensor ``NAME`` of the model ``NAME.lora_a`` and ``NAME.lora_b``.

    Opening checks everything that can be checked without the model.

    Raises:
        GGUFError: the file breaks the GGUF format.
        ModelError: it is no LoRA adapter, or its tensors do not fit together; file and tensor are named.
        OSError: the file cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path: Final = Path(path)
        self.file: Final = GGUFFile(path)
        try:
            meta = ModelMetadata(self.file)
            self.architecture: Final = meta.architecture
            """``general.architecture`` of the models it is for."""
            self.name: Final = meta.get_str("general.name", default=self.path.stem)
            self.alpha: Final = _read_alpha(meta)
            """``adapter.lora.alpha``; 0 (or absent): the factor is 1 whatever the rank."""
            self.pairs: Final[Mapping[str, AdapterPair]] = MappingProxyType(self._read_pairs())
            """By the name of the model's tensor."""
        except BaseException:
            self.file.close()
            raise

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The same as the constructor."""
        return cls(path)

    def _read_pairs(self) -> dict[str, AdapterPair]:
        halves: dict[str, dict[str, TensorInfo]] = {}
        norms = []
        for info in self.file.tensors.values():
            target, dot, half = info.name.rpartition(".")
            if dot and half in ("lora_a", "lora_b") and target:
                halves.setdefault(target, {})[half] = info
            elif info.name.endswith("_norm.weight"):
                norms.append(info.name)
            else:
                raise ModelError(f"{self.path}: tensor {info.name!r} is neither NAME.lora_a nor NAME.lora_b")
        if norms:
            log.warning("%s: %d norms of the adapter are left out, as llama.cpp does", self.path, len(norms))
        if not halves:
            raise ModelError(f"{self.path}: the adapter holds no tensors")
        return {target: self._pair(target, found) for target, found in halves.items()}

    def _pair(self, target: str, found: Mapping[str, TensorInfo]) -> AdapterPair:
        for half in ("lora_a", "lora_b"):
            if half not in found:
                raise ModelError(f"{self.path}: tensor '{target}.{half}' is missing; its other half is there")
        a, b = (self._matrix(found[half]) for half in ("lora_a", "lora_b"))
        rank = b.shape[0]
        if a.shape[0 if target == EMBEDDING else 1] != rank:
            raise ModelError(
                f"{self.path}: tensors {a.name!r} and {b.name!r} have the ggml shapes {list(a.shape)} and "
                f"{list(b.shape)}, which share no rank"
            )
        return AdapterPair(target, a, b, self.alpha / rank if self.alpha else 1.0)

    def _matrix(self, info: TensorInfo) -> TensorInfo:
        """The same with two dimensions, which may not be more."""
        if info.type not in _TYPES:
            names = ", ".join(t.name for t in _TYPES)
            raise ModelError(f"{self.path}: tensor {info.name!r} is {info.type.name}; adapters hold {names}")
        rows = math.prod(info.shape[1:])
        if info.n_elements == 0 or (len(info.shape) > 1 and rows != info.shape[1]):
            raise ModelError(
                f"{self.path}: tensor {info.name!r} has the ggml shape {list(info.shape)}; it is no matrix"
            )
        return TensorInfo(info.name, (info.shape[0], rows), info.type, info.offset, info.n_bytes, info.part)

    def check_fits(self, base: GGUFFile) -> None:
        """Compare with the model that it is to change: architecture, names and shapes of tensors.

        Raises:
            ModelError: it was made for another architecture, or for tensors that ``base`` lacks or has otherwise.
        """
        architecture = base.metadata.get("general.architecture")
        if architecture != self.architecture:
            raise ModelError(
                f"{self.path}: the adapter is for {self.architecture!r} models; {base.path} is {architecture!r}"
            )
        for pair in self.pairs.values():
            info = base.tensors.get(pair.target)
            if info is None:
                raise ModelError(
                    f"{self.path}: the adapter changes the tensor {pair.target!r}, which {base.path} does not have; "
                    "it was made for another model"
                )
            if info.shape != pair.target_shape:
                raise ModelError(
                    f"{self.path}: {pair.a.name!r} and {pair.b.name!r} are for a tensor of ggml shape "
                    f"{list(pair.target_shape)}; in {base.path} it has {list(info.shape)}"
                )

    def data(self, info: TensorInfo) -> memoryview:
        """The bytes of a tensor.

        Raises:
            ModelError: it holds NaN or infinity. Times a scale of 0 they would still spoil the other requests of a
                batch.
        """
        raw = self.file.data(info.name)
        if not np.isfinite(dequantize(np.frombuffer(raw, np.uint8), info.type, info.n_elements)).all():
            raise ModelError(f"{self.path}: tensor {info.name!r} holds values that are not finite; the file is damaged")
        return raw

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()


def _read_alpha(meta: ModelMetadata) -> float:
    for key, want in (("general.type", "adapter"), ("adapter.type", "lora")):
        if (got := meta.get_str(key, default="")) != want:
            raise ModelError(f"{meta.path}: {key} is {got!r}; a LoRA adapter has {want!r}")
    if "adapter.alora.invocation_tokens" in meta:
        raise ModelError(f"{meta.path}: activated LoRA (adapter.alora.invocation_tokens) is not supported")
    alpha = meta.get_float("adapter.lora.alpha", default=0.0)
    if not math.isfinite(alpha) or alpha < 0.0:
        raise ModelError(f"{meta.path}: adapter.lora.alpha is {alpha}; it must be a number of 0 or more")
    return alpha
