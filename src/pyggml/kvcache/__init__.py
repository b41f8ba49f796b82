"""What attention remembers: cells, positions, sequences, masks. Knows tensors and batches, not models."""

from .base import Cache, CacheView, LayerShape, pad_to
from .batch_only import BatchOnlyCache, BatchOnlyView
from .causal import CausalCache, CausalView
from .cells import CellTable
from .mixed import MixedCache, MixedView

__all__ = [
    "BatchOnlyCache",
    "BatchOnlyView",
    "Cache",
    "CacheView",
    "CausalCache",
    "CausalView",
    "CellTable",
    "LayerShape",
    "MixedCache",
    "MixedView",
    "pad_to",
]
