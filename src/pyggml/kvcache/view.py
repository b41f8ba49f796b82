"""A causal cache as one graph sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyggml.batch import Batch
from pyggml.tensor import Graph, Tensor

from .native import MaskInput
from .storage import StorageView

if TYPE_CHECKING:
    from .causal import CausalCache

__all__ = ["CausalView"]


class CausalView:
    """The first ``n_kv`` cells of a :class:`~pyggml.kvcache.CausalCache`, for ``n_tokens`` tokens."""

    def __init__(self, cache: CausalCache, graph: Graph, n_tokens: int, n_kv: int) -> None:
        self.cache = cache
        self.n_kv = n_kv
        self.flash_attn = cache.flash_attn
        label = f"_w{cache.window}" if cache.window else f"_c{cache.chunk}" if cache.chunk else ""
        self._storage = StorageView(cache.storage, graph, n_tokens, n_kv, label=label)
        self._mask = MaskInput(graph, n_kv, n_tokens, half=cache.flash_attn, name=f"cache_mask{label}")

    def put(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Store ``k`` and ``v``; see :class:`~pyggml.kvcache.CacheView`."""
        self._storage.put(layer, k, v)
        return *self._storage.seen(layer), self._mask.tensor

    def set_inputs(self, batch: Batch) -> None:
        """Write row indices and mask of the batch that the cache took last."""
        cache = self.cache
        self._storage.write(cache.taken)
        self._mask.fill(cache.cells, batch, window=cache.window, chunk=cache.chunk)
