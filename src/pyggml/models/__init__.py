"""One file per ``general.architecture``, each reading like the paper: config from metadata, layers, forward."""

from .base import CacheKind, Inputs, LayerCache, Model, ModelShape, Pooling, count
from .registry import architectures, create_model

__all__ = [
    "CacheKind",
    "Inputs",
    "LayerCache",
    "Model",
    "ModelShape",
    "Pooling",
    "architectures",
    "count",
    "create_model",
]
