"""One file per ``general.architecture``, each reading like the paper: config from metadata, layers, forward."""

from .base import CacheKind, Inputs, LayerCache, Model, ModelShape, Pooling, can_shift, count
from .registry import architectures, create_model

__all__ = [
    "CacheKind",
    "Inputs",
    "LayerCache",
    "Model",
    "ModelShape",
    "Pooling",
    "architectures",
    "can_shift",
    "count",
    "create_model",
]
