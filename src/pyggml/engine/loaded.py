"""A model file on its devices: weights, cache and graphs, opened and closed together."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from pyggml.closing import Closing
from pyggml.errors import OutOfMemoryError, PyggmlError
from pyggml.gguf import GGUFFile
from pyggml.tensor import trim_memory

from .assembly import Assembly
from .config import EngineConfig
from .fit import measure_placement, open_placement

__all__ = ["LoadedModel"]

log = logging.getLogger("pyggml.engine")


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
        self.placement, self.backends, _ = open_placement(self.file, config, stack)
        try:
            parts = Assembly(self.file, self.backends, self.placement, config, progress=progress)
        except OutOfMemoryError as error:
            raise OutOfMemoryError(f"{path}: {error}. {self._explain()}") from error
        stack.enter_context(parts)
        self.metadata = parts.metadata
        self.weights = parts.weights
        self.model = parts.model
        self.n_ctx = parts.n_ctx
        self.flash_attn = parts.flash_attn
        self.cache = parts.cache
        self.executor = parts.executor
        self.decoder = parts.decoder
        trim_memory()  # a process that loads a model has read much that it need not keep
        self._report(parts)

    def _explain(self) -> str:
        """What was needed, what there is, and what can be done."""
        try:
            measured = measure_placement(self.file, self.backends, self.placement, self.config)
        except PyggmlError:
            return "Lower n_ctx, n_parallel, n_batch or n_gpu_layers"
        parts = []
        for device, need in zip(self.placement.devices, measured.needs, strict=True):
            free, _ = device.memory()
            parts.append(
                f"{device.name} needs {_mib(need.total)} MiB (weights {_mib(need.weights)}, KV cache "
                f"{_mib(need.cache)}, compute {_mib(need.compute)}) and has {_mib(free)} MiB free"
            )
        steps = "n_ctx, n_parallel or n_batch, or take smaller cache types"
        if len(self.placement.devices) > 1:
            steps += ", or place fewer layers there (n_gpu_layers; -1: as many as fit)"
        return f"{'; '.join(parts)}. Lower {steps}"

    def _report(self, parts: Assembly) -> None:
        if unused := self.weights.unused():
            shown = ", ".join(unused[:5]) + (", ..." if len(unused) > 5 else "")
            log.warning("%s: %d tensors are not used and may be missed: %s", self.file.path, len(unused), shown)
        if parts.no_flash_attn_on:
            name = parts.no_flash_attn_on
            log.warning("flash attention is off: device %s does not support it for this model", name)
        if self.config.n_gpu_layers and len(self.placement.devices) == 1:
            log.warning("n_gpu_layers is %d, but all layers are on the CPU", self.config.n_gpu_layers)
        if len(self.placement.devices) > 1:
            where = ", ".join(
                f"{self.placement.layers_on(i)} on {device.name}" for i, device in enumerate(self.placement.devices)
            )
            log.info("layers (with the output): %s", where)

    def close(self) -> None:
        """Free graphs, cache, weights and threads, in this order; a second call does nothing."""
        self._stack.close()


def _mib(n: int) -> int:
    return -(-n // 2**20)
