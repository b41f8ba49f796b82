"""A model put together on its devices, for real or only counted."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from pyggml.closing import Closing
from pyggml.errors import DTypeError, ModelError, ParameterError, ShapeError
from pyggml.gguf import GGUFFile, ModelMetadata
from pyggml.kvcache import CausalCache, MixedCache
from pyggml.lora import Adapters
from pyggml.models import CacheKind, create_model
from pyggml.tensor import Backend, Device, Executor
from pyggml.weights import Weights

from .caches import create_cache, flash_attn_works
from .config import EngineConfig
from .decoder import Decoder
from .placement import Placement, choose_accelerators, layer_of

__all__ = ["Assembly", "Need"]

# What the tensor room says when metadata and weights of a file make no graph.
_MISFITS = (DTypeError, ParameterError, ShapeError)


@dataclass
class Need:
    """Bytes that a model takes on one device."""

    weights: int = 0
    cache: int = 0
    compute: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.cache + self.compute


class Assembly(Closing):
    """Weights, cache and graphs of one model, opened in this order and closed in the opposite one."""

    def __init__(
        self,
        file: GGUFFile,
        backends: Sequence[Backend],
        placement: Placement,
        config: EngineConfig,
        *,
        dry: bool = False,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """Put a model together.

        Args:
            file: the model's file.
            backends: one for each of ``placement.devices``.
            placement: what goes where.
            config: the other options.
            dry: take no memory (but for what a device needs to lay out a graph), read no weights, and count.
            progress: called with the fraction of the weights loaded, 0 to 1.

        Raises:
            GGUFError, ModelError: the file cannot be run. ParameterError: options that do not go together.
            OutOfMemoryError: a device has no room.
        """
        self.file = file
        self.metadata = ModelMetadata(file)
        self.placement = placement
        self.backends = list(backends)
        self.config = config
        self._stack = ExitStack()
        try:
            self._open(dry, progress)
        except BaseException:
            self.close()
            raise

    def _open(self, dry: bool, progress: Callable[[float], None] | None) -> None:
        config, stack, placement = self.config, self._stack, self.placement
        self.weights = Weights(
            self.file,
            placement.devices,
            use_mmap=config.use_mmap,
            repack=config.repack,
            place=placement.devices_for,
            dry=dry,
        )
        stack.callback(self.weights.close)
        try:
            self.model = create_model(self.metadata, self.weights.scope())
        except _MISFITS as error:
            raise ModelError(f"{self.file.path}: {error}") from error
        self.weights.load(progress=progress)
        self.n_ctx = config.n_ctx or self.model.shape.n_ctx_train
        self.flash_attn = self._choose_flash_attn()

        def cache_device(layer: int) -> Device:
            device = placement.devices[placement.cache_device(layer)]
            return device.as_dry() if dry else device

        self.cache = create_cache(self.model.shape, config, cache_device, n_ctx=self.n_ctx, flash_attn=self.flash_attn)
        stack.callback(self.cache.close)
        helpers = [
            stack.enter_context(Backend(device, n_threads=config.n_threads))
            for device in choose_accelerators(config)
            if not dry
        ]
        everyone = [*self.backends[:-1], *helpers, self.backends[-1]]
        self.executor = stack.enter_context(Executor(everyone, keep_on_host=not placement.kv_offload, dry=dry))
        self.adapters: Adapters | None = None
        if config.adapters:
            device_of = (lambda name: self.weights.device_of(name).as_dry()) if dry else self.weights.device_of
            self.adapters = stack.enter_context(Adapters(config.adapters, self.file, device_of=device_of))
        self.decoder = Decoder(self.model, self.cache, self.executor, adapters=self.adapters)
        stack.callback(self.decoder.close)
        try:
            n_tokens = min(config.n_batch, self.n_ctx)
            self.decoder.reserve(n_tokens, n_outputs=min(config.n_parallel, n_tokens))
        except _MISFITS as error:
            raise ModelError(f"{self.file.path}: {error}") from error

    def _choose_flash_attn(self) -> bool:
        """Every device that computes attention must have it: all layers read one kind of cache."""
        c, p, shape = self.config, self.placement, self.model.shape
        if c.flash_attn is False:
            return False
        where = p.cache_device if shape.cache != CacheKind.BATCH_ONLY else p.layers.__getitem__
        for index in sorted({where(layer.shape.layer) for layer in shape.layers}):
            device = p.devices[index]
            if not flash_attn_works(shape.layers, device, type_k=c.type_k, type_v=c.type_v):
                if c.flash_attn:
                    raise ParameterError(
                        f"device {device.name} has no flash attention for this model with "
                        f"{c.type_k.name}/{c.type_v.name} caches; leave flash_attn to the engine, or use F16"
                    )
                self.no_flash_attn_on = device.name
                return False
        return True

    no_flash_attn_on = ""
    """The device because of which attention is not fused, though nobody forbade it."""

    def needs(self) -> list[Need]:
        """What the model takes, for each of ``placement.devices``."""
        index = {device.name: i for i, device in enumerate(self.placement.devices)}
        needs = [Need() for _ in index]
        for backend, compute in zip(self.executor.backends, self.executor.sizes, strict=True):
            needs[index.get(backend.device.name, -1)].compute += compute
        for _, device, n_bytes in self.weights.sizes():
            needs[index[device.name]].weights += n_bytes
        for device, n_bytes in self.adapters.sizes() if self.adapters is not None else ():
            needs[index[device.name]].weights += n_bytes
        for layer, n_bytes in self._cache_sizes():
            needs[self.placement.cache_device(layer)].cache += n_bytes
        return needs

    def layer_sizes(self) -> list[list[int]]:
        """Bytes of weights and cache on each device, for each layer; the last row is the output and the rest."""
        index = {device.name: i for i, device in enumerate(self.placement.devices)}
        rows = [[0] * len(index) for _ in range(len(self.placement.layers) + 1)]
        for name, device, n_bytes in self.weights.sizes():
            layer = layer_of(name)
            rows[-1 if layer is None else min(layer, len(rows) - 1)][index[device.name]] += n_bytes
        for layer, n_bytes in self._cache_sizes():
            rows[layer][self.placement.cache_device(layer)] += n_bytes
        return rows

    def _cache_sizes(self) -> list[tuple[int, int]]:
        parts = self.cache.caches if isinstance(self.cache, MixedCache) else [self.cache]
        return [
            (layer, keys.n_bytes + part.values[layer].n_bytes)
            for part in parts
            if isinstance(part, CausalCache)
            for layer, keys in part.keys.items()
        ]

    def close(self) -> None:
        """Free graphs, cache and weights, in this order; a second call does nothing."""
        self._stack.close()
