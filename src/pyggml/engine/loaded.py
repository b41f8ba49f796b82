"""A model file on its devices: weights, cache and graphs, opened and closed together."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from pyggml.closing import Closing
from pyggml.errors import DTypeError, ModelError, ParameterError, ShapeError
from pyggml.gguf import GGUFFile, ModelMetadata
from pyggml.models import create_model
from pyggml.tensor import Backend, Executor, find_device
from pyggml.weights import Weights

from .caches import create_cache, flash_attn_works
from .config import EngineConfig
from .decoder import Decoder

__all__ = ["LoadedModel"]

log = logging.getLogger("pyggml.engine")

# What the tensor room says when metadata and weights of a file make no graph.
_MISFITS = (DTypeError, ParameterError, ShapeError)


class LoadedModel(Closing):
    """Everything that computing needs, and nothing about text."""

    def __init__(self, path: Path, config: EngineConfig, *, progress: Callable[[float], None] | None = None) -> None:
        """Open a model; arguments and exceptions as for :class:`~pyggml.engine.Engine`."""
        self.config = config
        self._stack = ExitStack()
        try:
            self._open(path, progress)
        except BaseException:
            self.close()
            raise

    def _open(self, path: Path, progress: Callable[[float], None] | None) -> None:
        config, stack = self.config, self._stack
        self.file = stack.enter_context(GGUFFile(path))
        self.metadata = ModelMetadata(self.file)
        device = find_device(config.device)
        self.backends = [stack.enter_context(Backend(device, n_threads=config.n_threads))]
        if not device.is_cpu:
            self.backends.append(stack.enter_context(Backend(find_device("CPU"), n_threads=config.n_threads)))
        devices = [backend.device for backend in self.backends]
        self.weights = Weights(self.file, devices, use_mmap=config.use_mmap, repack=config.repack)
        stack.callback(self.weights.close)
        try:
            self.model = create_model(self.metadata, self.weights.scope())
        except _MISFITS as error:
            raise ModelError(f"{path}: {error}") from error
        self.weights.load(progress=progress)
        shape = self.model.shape
        self.n_ctx = config.n_ctx or shape.n_ctx_train
        self.flash_attn = self._choose_flash_attn()
        self.cache = create_cache(shape, config, device, n_ctx=self.n_ctx, flash_attn=self.flash_attn)
        stack.callback(self.cache.close)
        executor = stack.enter_context(Executor(self.backends))
        self.decoder = Decoder(self.model, self.cache, executor)
        stack.callback(self.decoder.close)
        self.executor = executor
        try:
            self.decoder.reserve(min(config.n_batch, self.n_ctx))
        except _MISFITS as error:
            raise ModelError(f"{path}: {error}") from error
        self._report_unused()

    def _report_unused(self) -> None:
        if unused := self.weights.unused():
            shown = ", ".join(unused[:5]) + (", ..." if len(unused) > 5 else "")
            log.warning("%s: %d tensors are not used and may be missed: %s", self.file.path, len(unused), shown)

    def _choose_flash_attn(self) -> bool:
        c, device = self.config, self.backends[0].device
        works = flash_attn_works(list(self.model.shape.layers), device, type_k=c.type_k, type_v=c.type_v)
        if c.flash_attn and not works:
            raise ParameterError(
                f"device {device.name} has no flash attention for this model with {c.type_k.name}/{c.type_v.name} "
                "caches; leave flash_attn to the engine, or use F16"
            )
        if c.flash_attn is None and not works:
            log.warning("flash attention is off: device %s does not support it for this model", device.name)
        return works if c.flash_attn is None else c.flash_attn

    def close(self) -> None:
        """Free graphs, cache, weights and threads, in this order; a second call does nothing."""
        self._stack.close()
