"""The cache that a model needs, from what it says of its layers."""

from collections.abc import Callable, Sequence

from pyggml.kvcache import BatchOnlyCache, Cache, CausalCache, MixedCache
from pyggml.models import CacheKind, LayerCache, ModelShape
from pyggml.tensor import Arena, Device, DType, ops

from .config import EngineConfig

__all__ = ["create_cache", "flash_attn_works", "n_cells"]


def n_cells(config: EngineConfig, *, n_ctx: int, reach: int) -> int:
    """Tokens that a cache must hold for ``config.n_parallel`` sequences of ``n_ctx`` positions.

    Args:
        config: how many sequences and how large batches are.
        n_ctx: positions of one sequence.
        reach: how many positions a token sees at most, 0 for all.
    """
    everything = n_ctx * config.n_parallel
    # Room for a whole batch beside the windows: its first token still looks back.
    return min(everything, reach * config.n_parallel + config.n_batch) if reach else everything


def create_cache(
    shape: ModelShape, config: EngineConfig, device_of: Callable[[int], Device], *, n_ctx: int, flash_attn: bool
) -> Cache:
    """One cache per size of window and chunk; a single one where all layers agree.

    Args:
        shape: the model.
        config: types and sizes.
        device_of: the device that holds the keys and values of a layer.
        n_ctx: positions of one sequence.
        flash_attn: whether attention is fused.

    Raises:
        ParameterError: the cache types do not go with ``flash_attn`` or with the head size.
        OutOfMemoryError: a device has no room.
    """
    if shape.cache == CacheKind.BATCH_ONLY:
        return BatchOnlyCache(flash_attn=flash_attn)
    looks = sorted({_look(layer) for layer in shape.layers})
    caches: list[Cache] = []
    try:
        for window, chunk in looks:
            inside = [layer.shape for layer in shape.layers if _look(layer) == (window, chunk)]
            caches.append(
                CausalCache(
                    inside,
                    [device_of(layer.layer) for layer in inside],
                    n_cells=n_cells(config, n_ctx=n_ctx, reach=min(filter(None, (window, chunk)), default=0)),
                    type_k=config.type_k,
                    type_v=config.type_v,
                    flash_attn=flash_attn,
                    window=window,
                    chunk=chunk,
                )
            )
    except Exception:
        for cache in caches:
            cache.close()
        raise
    if len(caches) == 1:
        return caches[0]
    return MixedCache(caches, {layer.shape.layer: looks.index(_look(layer)) for layer in shape.layers})


def _look(layer: LayerCache) -> tuple[int, int]:
    return layer.window, layer.chunk


def flash_attn_works(layers: Sequence[LayerCache], device: Device, *, type_k: DType, type_v: DType) -> bool:
    """Ask the device whether it has fused attention for these head sizes and cache types."""
    for shape in {(layer.shape.d_k, layer.shape.d_v, layer.shape.n_head_kv) for layer in layers}:
        d_k, d_v, n_head_kv = shape
        if d_k % type_k.block_size or d_v % type_v.block_size:
            return False
        with Arena() as arena:
            node = ops.flash_attn(
                arena.new_tensor(DType.F32, (d_k, 1, n_head_kv)),
                arena.new_tensor(type_k, (d_k, 256, n_head_kv)),
                arena.new_tensor(type_v, (d_v, 256, n_head_kv)),
                arena.new_tensor(DType.F16, (256, 1)),
                scale=1.0,
            )
            if not device.supports_op(node):
                return False
    return True
