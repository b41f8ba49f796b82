"""Rotary positions: what ``config.json`` says about them, in GGUF's keys."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pyggml.convert.checkpoint import Checkpoint
from pyggml.errors import ModelError
from pyggml.gguf import GGUFWriter

__all__ = ["Rope", "read_rope"]

_YARN: Final = {
    "extrapolation_factor": "yarn_ext_factor",
    "attention_factor": "yarn_attn_factor",
    "attn_factor": "yarn_attn_factor",
    "beta_fast": "yarn_beta_fast",
    "beta_slow": "yarn_beta_slow",
}


@dataclass(frozen=True)
class Rope:
    """The rotary settings of a model.

    Attributes:
        checkpoint: Where they were read, for messages.
        settings: Of the layers that see everything.
        kind: ``default``, ``linear``, ``yarn`` or ``llama3``.
        base: The base of the frequencies; None: it is not said.
        local_base: That of the layers with a window.
    """

    checkpoint: Checkpoint
    settings: Mapping[str, Any]
    kind: str
    base: float | None
    local_base: float | None

    def write(self, writer: GGUFWriter, architecture: str) -> None:
        """Add the keys ``<architecture>.rope.*``."""
        prefix = f"{architecture}.rope"
        if self.kind in ("linear", "yarn"):
            writer.add(f"{prefix}.scaling.type", self.kind)
            writer.add(f"{prefix}.scaling.factor", self._number("factor"))
        if self.kind == "yarn":
            original = self.checkpoint.checked_number(
                self.settings.get("original_max_position_embeddings"), "original_max_position_embeddings"
            )
            writer.add(f"{prefix}.scaling.original_context_length", int(original))
            written = set[str]()
            for field, key in _YARN.items():
                if self.settings.get(field) is not None and key not in written:
                    written.add(key)
                    writer.add(f"{prefix}.scaling.{key}", self._number(field))
        if self.base is not None:
            writer.add(f"{prefix}.freq_base", self.base)
        if self.local_base is not None:
            writer.add(f"{prefix}.freq_base_swa", self.local_base)

    def factors(self, n_dims: int) -> np.ndarray | None:
        """What the frequencies are divided by, ``(n_dims / 2)``, for Llama 3.1's stretching; else None."""
        if self.kind != "llama3":
            return None
        factor, low = self._number("factor", 8.0), self._number("low_freq_factor", 1.0)
        high, original = self._number("high_freq_factor", 4.0), self._number("original_max_position_embeddings", 8192)
        if high <= low or low <= 0.0 or factor <= 0.0 or original <= 0.0:
            raise ModelError(f"{self.checkpoint.folder / 'config.json'}: the factors of rope_type llama3 make no range")
        base = 10000.0 if self.base is None else self.base
        # in float32, step by step as published, so that the factors are the same to the last bit
        steps = np.arange(0, n_dims, 2, dtype=np.float32) / np.float32(n_dims)
        freqs = np.float32(1.0) / np.power(np.float32(base), steps)
        return np.array([_factor(f, factor, low, high, original) for f in freqs], np.float32)

    def _number(self, key: str, default: float | None = None) -> float:
        value = self.settings.get(key)
        return self.checkpoint.checked_number(default if value is None else value, key)


def _factor(freq: np.float32, factor: float, low: float, high: float, original: float) -> np.float32 | float:
    length = 2 * math.pi / freq
    if length < original / high:
        return 1.0
    if length > original / low:
        return factor
    smooth = (original / length - low) / (high - low)
    return 1.0 / ((1.0 - smooth) / factor + smooth)


def read_rope(checkpoint: Checkpoint) -> Rope:
    """Read ``rope_parameters`` (transformers 5) or ``rope_theta`` and ``rope_scaling`` (before).

    Raises:
        ModelError: a kind of scaling that GGUF or the models here do not have.
    """
    config, path = checkpoint.config, checkpoint.folder / "config.json"
    whole = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(whole, Mapping):
        raise ModelError(f"{path}: rope_parameters is no object")
    settings, local = whole.get("full_attention", whole), whole.get("sliding_attention")
    if not isinstance(settings, Mapping) or not isinstance(local, Mapping | None):
        raise ModelError(f"{path}: rope_parameters holds no objects")
    kind = settings.get("rope_type", settings.get("type", "default"))
    if kind not in ("default", "linear", "yarn", "llama3"):
        raise ModelError(f"{path}: rope_type {kind!r} is not supported; default, linear, yarn and llama3 are")
    base = settings.get("rope_theta", config.get("rope_theta"))
    local_base = config.get("rope_local_base_freq") if local is None else local.get("rope_theta")
    if local is not None and local.get("rope_type", "default") != "default":
        raise ModelError(f"{path}: the layers with a window have rope_type {local['rope_type']!r}, not default")
    if config.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise ModelError(f"{path}: partial_rotary_factor is not supported")
    original = config.get("original_max_position_embeddings")
    if "original_max_position_embeddings" not in settings and original is not None:
        settings = {**settings, "original_max_position_embeddings": original}
    return Rope(checkpoint, settings, str(kind), _base(checkpoint, base), _base(checkpoint, local_base))


def _base(checkpoint: Checkpoint, value: Any) -> float | None:
    if value is None:
        return None
    base = checkpoint.checked_number(value, "rope_theta")
    if base <= 0.0:
        raise ModelError(f"{checkpoint.folder / 'config.json'}: the base of the frequencies is {base}")
    return base
