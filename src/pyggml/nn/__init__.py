"""Layers shared by models: small classes that hold weights, rotary positions, attention over a cache."""

from .attention import attention
from .layers import Embedding, LayerNorm, Linear, RMSNorm
from .rope import RopeMode, RopeParams, rope_params, shift_params

__all__ = [
    "Embedding",
    "LayerNorm",
    "Linear",
    "RMSNorm",
    "RopeMode",
    "RopeParams",
    "attention",
    "rope_params",
    "shift_params",
]
