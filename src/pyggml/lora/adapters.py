"""Adapters loaded beside a model's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pyggml.closing import Closing
from pyggml.errors import ModelError, ParameterError
from pyggml.gguf import GGUFFile
from pyggml.tensor import Arena, BufferUsage, Device, DType, Graph, Tensor

from .adapter import LoraAdapter
from .overlay import AdaptedArena, LoadedPair, Overlay

__all__ = ["Adapters"]


class Adapters(Closing):
    """Several adapters of one model, each pair on the device of the weight that it changes."""

    def __init__(self, paths: Sequence[str | Path], base: GGUFFile, *, device_of: Callable[[str], Device]) -> None:
        """Open and load adapters.

        Args:
            paths: their files; an adapter's place in this list is its index.
            base: the model's file.
            device_of: the device of one of the model's tensors, by name (``Weights.device_of``). On a dry device an
                adapter takes no memory and is only counted.

        Raises:
            GGUFError, ModelError: a file is no adapter for this model; the message names it.
            OutOfMemoryError: a device has no room.
            OSError: a file cannot be read.
        """
        self.paths = tuple(Path(path) for path in paths)
        self.names: list[str] = []
        """What each calls itself, else the name of its file."""
        self._pairs: list[dict[str, LoadedPair]] = []
        self._arenas: list[tuple[Device, Arena]] = []
        try:
            for path in self.paths:
                with LoraAdapter(path) as adapter:
                    adapter.check_fits(base)
                    self._pairs.append(self._load(adapter, device_of))
                    self.names.append(adapter.name)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self.paths)

    def _load(self, adapter: LoraAdapter, device_of: Callable[[str], Device]) -> dict[str, LoadedPair]:
        arenas: dict[str, tuple[Device, Arena]] = {}
        loaded = {}
        for pair in adapter.pairs.values():
            device = device_of(pair.target)
            if device.name not in arenas:
                arenas[device.name] = (device, Arena(static=True))
                self._arenas.append(arenas[device.name])
            arena = arenas[device.name][1]
            a, b = (arena.new_tensor(DType(i.type), i.shape, name=i.name) for i in (pair.a, pair.b))
            loaded[pair.target] = LoadedPair(a, b, pair.factor)
        for device, arena in arenas.values():
            for buffer in arena.allocate(device.buffer_type, f"the adapter {adapter.path.name} on {device.name}"):
                buffer.set_usage(BufferUsage.WEIGHTS)
        if not any(device.dry for device, _ in arenas.values()):
            for pair in adapter.pairs.values():
                loaded[pair.target].a.set_bytes(adapter.data(pair.a))
                loaded[pair.target].b.set_bytes(adapter.data(pair.b))
        return loaded

    def sizes(self) -> Iterator[tuple[Device, int]]:
        """Devices and the bytes taken there."""
        for device, arena in self._arenas:
            yield device, arena.n_bytes

    @property
    def n_bytes(self) -> int:
        """Bytes of memory on all devices."""
        return sum(n_bytes for _, n_bytes in self.sizes())

    def check(self, scales: Mapping[int, npt.NDArray[np.float32]], *, n_tokens: int) -> tuple[int, ...]:
        """The adapters that a batch uses, ascending.

        Args:
            scales: of each of them, ``(n_tokens)``.
            n_tokens: of the batch.

        Raises:
            ParameterError: there is no such adapter, or its scales are not one finite number per token.
        """
        for index, values in scales.items():
            if not 0 <= index < len(self):
                raise ParameterError(f"adapter {index}: there are {len(self)} adapters, counted from 0")
            if np.shape(values) != (n_tokens,) or not np.isfinite(values).all():
                raise ParameterError(f"adapter {index}: its scales must be {n_tokens} finite numbers, one per token")
        return tuple(sorted(scales))

    def graph(self) -> Graph:
        """An empty graph that adapters can be laid over; it owns its arena."""
        return _AdaptedGraph()

    def overlay(self, graph: Graph, active: Sequence[int], *, n_tokens: int, output_rows: Tensor | None) -> Overlay:
        """Lay adapters over a graph of :meth:`graph`, before its layers are built.

        Args:
            graph: the graph.
            active: indices of the adapters.
            n_tokens: tokens of the graph.
            output_rows: see :class:`~pyggml.lora.Overlay`.
        """
        if not isinstance(graph.arena, AdaptedArena):
            raise ParameterError("adapters can be laid only over a graph from Adapters.graph()")
        pairs = {i: self._pairs[i] for i in active}
        overlay = graph.arena.overlay = Overlay(graph, pairs, n_tokens=n_tokens, output_rows=output_rows)
        return overlay

    def need_applied(self, overlay: Overlay) -> None:
        """Check that a graph with all adapters used every pair.

        Raises:
            ModelError: a tensor is one that the model does not multiply with.
        """
        for i, pairs in enumerate(self._pairs):
            for target in pairs:
                if (i, target) not in overlay.applied:
                    raise ModelError(
                        f"{self.paths[i]}: the adapter changes the tensor {target!r}, which the model has but does not "
                        "use as a matrix; it cannot be applied"
                    )

    def close(self) -> None:
        """Free the memory; a second call does nothing."""
        for _, arena in self._arenas:
            arena.close()
        self._arenas, self._pairs = [], []


class _AdaptedGraph(Graph):
    """A graph that closes its arena, which carries the overlay."""

    def __init__(self) -> None:
        super().__init__(arena=AdaptedArena())

    def close(self) -> None:
        super().close()
        self.arena.close()
