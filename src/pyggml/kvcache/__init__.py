"""What attention remembers: cells, positions, sequences, masks. Knows tensors and batches, not models."""

from .base import Cache, CacheView, LayerShape, Rotate, pad_to
from .batch_only import BatchOnlyCache, BatchOnlyView
from .causal import CausalCache
from .cells import CellTable
from .encoder import EncoderCache, EncoderView
from .mixed import MixedCache, MixedView
from .recurrent import RecurrentCache, RecurrentView, StateShape
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
    "EncoderCache",
    "EncoderView",
    "LayerShape",
    "MixedCache",
    "MixedView",
    "RecurrentCache",
    "RecurrentView",
    "Rotate",
    "StateShape",
    "pad_to",
]
