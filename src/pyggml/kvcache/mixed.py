"""Several caches behind one: layers with a sliding window beside layers that see everything."""

from collections.abc import Mapping, Sequence

from pyggml.batch import Batch
from pyggml.tensor import Graph, Tensor

from .base import Cache, CacheView

__all__ = ["MixedCache", "MixedView"]


class MixedCache:
    """Sends each layer to its cache, and everything else to all of them."""

    def __init__(self, caches: Sequence[Cache], cache_of: Mapping[int, int]) -> None:
        """
        Args:
            caches: they must agree on ``flash_attn``.
            cache_of: layer -> index into ``caches``.
        """
        self.caches = list(caches)
        self.cache_of = dict(cache_of)
        self.flash_attn = caches[0].flash_attn

    def start(self, batch: Batch) -> None:
        for i, cache in enumerate(self.caches):
            try:
                cache.start(batch)
            except Exception:
                for begun in self.caches[:i]:
                    begun.cancel()
                raise

    def cancel(self) -> None:
        for cache in self.caches:
            cache.cancel()

    def key(self) -> tuple[int, ...]:
        return tuple(n for cache in self.caches for n in cache.key())

    def reserve_key(self) -> tuple[int, ...]:
        return tuple(n for cache in self.caches for n in cache.reserve_key())

    def view(self, graph: Graph, n_tokens: int, key: tuple[int, ...]) -> "MixedView":
        views, begin = [], 0
        for cache in self.caches:
            end = begin + len(cache.reserve_key())
            views.append(cache.view(graph, n_tokens, key[begin:end]))
            begin = end
        return MixedView(views, self.cache_of)

    def remove(self, seq_id: int, begin: int, end: int | None = None) -> None:
        for cache in self.caches:
            cache.remove(seq_id, begin, end)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        for cache in self.caches:
            cache.copy_prefix(source, target, length)

    def can_resume(self, seq_id: int, position: int) -> bool:
        return all(cache.can_resume(seq_id, position) for cache in self.caches)

    @property
    def n_bytes(self) -> int:
        return sum(cache.n_bytes for cache in self.caches)

    def close(self) -> None:
        for cache in self.caches:
            cache.close()


class MixedView:
    """A :class:`MixedCache` as one graph sees it."""

    def __init__(self, views: Sequence[CacheView], cache_of: Mapping[int, int]) -> None:
        self.views = list(views)
        self.cache_of = cache_of
        self.flash_attn = views[0].flash_attn

    def put(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.views[self.cache_of[layer]].put(layer, k, v)

    def set_inputs(self, batch: Batch) -> None:
        for view in self.views:
            view.set_inputs(batch)
