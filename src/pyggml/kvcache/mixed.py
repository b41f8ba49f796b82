"""Several caches behind one: layers with a sliding window beside layers that see everything."""

from collections.abc import Mapping, Sequence

from pyggml.batch import Batch
from pyggml.errors import ParameterError
from pyggml.tensor import Executor, Graph, Tensor

from .base import Cache, CacheView, Rotate
from .state import CacheState

__all__ = ["MixedCache", "MixedView"]


class MixedCache:
    """Sends each layer to its cache, and everything else to all of them."""

    def __init__(self, caches: Sequence[Cache], cache_of: Mapping[int, int]) -> None:
        """
        Args:
            caches: those that hold keys and values must agree on ``flash_attn``.
            cache_of: layer -> index into ``caches``.
        """
        self.caches = list(caches)
        self.cache_of = dict(cache_of)
        self.flash_attn = any(cache.flash_attn for cache in caches)

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

    def resume_point(self, seq_id: int, position: int) -> int:
        """See :class:`~pyggml.kvcache.Cache`."""
        while True:
            lowest = min(cache.resume_point(seq_id, position) for cache in self.caches)
            if lowest == position:
                return position
            position = lowest

    @property
    def n_cells(self) -> int:
        return max(cache.n_cells for cache in self.caches)

    @property
    def n_free(self) -> int:
        return min(cache.n_free for cache in self.caches)

    def sequence_length(self, seq_id: int) -> int:
        return max(cache.sequence_length(seq_id) for cache in self.caches)

    # -- moving positions ---------------------------------------------------------------------------------------

    @property
    def can_shift(self) -> bool:
        return all(cache.can_shift for cache in self.caches)

    def check_discard(self, seq_id: int, begin: int, end: int) -> None:
        for cache in self.caches:
            cache.check_discard(seq_id, begin, end)

    def discard(self, seq_id: int, begin: int, end: int) -> None:
        self.check_discard(seq_id, begin, end)
        for cache in self.caches:
            cache.discard(seq_id, begin, end)

    @property
    def pending_shifts(self) -> bool:
        return any(cache.pending_shifts for cache in self.caches)

    def apply_shifts(self, executor: Executor, rotate: Rotate) -> None:
        for cache in self.caches:
            cache.apply_shifts(executor, rotate)

    # -- saving -------------------------------------------------------------------------------------------------

    def save_sequence(self, seq_id: int, length: int) -> CacheState:
        if not self.can_resume(seq_id, length):
            raise ParameterError(f"sequence {seq_id} cannot be saved at length {length}: it does not hold all of it")
        return CacheState.join(length, (cache.save_sequence(seq_id, length) for cache in self.caches))

    def check_load(self, seq_id: int, state: CacheState) -> None:
        for i, cache in enumerate(self.caches):
            cache.check_load(seq_id, state.part(i))

    def load_sequence(self, seq_id: int, state: CacheState) -> None:
        self.check_load(seq_id, state)
        for i, cache in enumerate(self.caches):
            cache.load_sequence(seq_id, state.part(i))

    # -- memory -------------------------------------------------------------------------------------------------

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
        self.flash_attn = any(view.flash_attn for view in views)

    def of(self, layer: int) -> CacheView:
        """The view of the cache that the layer is in, for what only that kind of cache has."""
        return self.views[self.cache_of[layer]]

    def put(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.of(layer).put(layer, k, v)

    def set_inputs(self, batch: Batch) -> None:
        for view in self.views:
            view.set_inputs(batch)
