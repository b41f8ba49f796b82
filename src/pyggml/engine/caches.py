"""The cache that a model needs, from what it says of its layers."""

from pyggml.kvcache import BatchOnlyCache, Cache, CausalCache, LayerShape, MixedCache
from pyggml.models import CacheKind, LayerCache, ModelShape
from pyggml.tensor import Arena, Device, DType, ops

from .config import EngineConfig

__all__ = ["create_cache", "flash_attn_works"]


def create_cache(shape: ModelShape, config: EngineConfig, device: Device, *, n_ctx: int, flash_attn: bool) -> Cache:
    """One cache per window size; a single one where all layers agree.

    Raises:
        ParameterError: the cache types do not go with ``flash_attn`` or with the head size.
        OutOfMemoryError: the device has no room.
    """
    if shape.cache == CacheKind.BATCH_ONLY:
        return BatchOnlyCache(flash_attn=flash_attn)
    windows = sorted({layer.window for layer in shape.layers})
    caches: list[Cache] = []
    try:
        for window in windows:
            inside = [layer.shape for layer in shape.layers if layer.window == window]
            # Room for a whole batch beside the window: its first token still looks back.
            n_cells = min(n_ctx, window + config.n_batch) if window else n_ctx
            caches.append(_causal(inside, config, device, n_cells=n_cells, window=window, flash_attn=flash_attn))
    except Exception:
        for cache in caches:
            cache.close()
        raise
    if len(caches) == 1:
        return caches[0]
    return MixedCache(caches, {layer.shape.layer: windows.index(layer.window) for layer in shape.layers})


def _causal(
    layers: list[LayerShape], config: EngineConfig, device: Device, *, n_cells: int, window: int, flash_attn: bool
) -> CausalCache:
    return CausalCache(
        layers,
        [device] * len(layers),
        n_cells=n_cells,
        type_k=config.type_k,
        type_v=config.type_v,
        flash_attn=flash_attn,
        window=window,
    )


def flash_attn_works(layers: list[LayerCache], device: Device, *, type_k: DType, type_v: DType) -> bool:
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
