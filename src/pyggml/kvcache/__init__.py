"""What attention remembers: cells, positions, sequences, masks. Knows tensors and batches, not models."""

from .base import Cache, CacheView, LayerShape, Rotate, pad_to
from .batch_only import BatchOnlyCache, BatchOnlyView
from .causal import CausalCache
from .cells import CellTable
from .mixed import MixedCache, MixedView
from .state import CacheState
from .view import CausalView

__all__ = [
    "BatchOnlyCache",
    "BatchOnlyView",
    "Cache",
    "CacheState",
    "CacheView",
    "CausalCache",
    "CausalView",
    "CellTable",
    "LayerShape",
    "MixedCache",
    "MixedView",
    "Rotate",
    "pad_to",
]
