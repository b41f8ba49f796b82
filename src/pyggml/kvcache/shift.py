"""Rotating stored keys after their tokens moved."""

import numpy as np
import numpy.typing as npt

from pyggml.inputs import HostInput
from pyggml.tensor import DType, Executor, Graph, ops

from .base import Rotate
from .cells import Cells
from .storage import KVStorage

__all__ = ["rotate_keys"]

CHUNK = 512  # bounds the memory for keys in float32


def rotate_keys(
    storage: KVStorage, executor: Executor, rotate: Rotate, cells: Cells, delta: npt.NDArray[np.int32]
) -> None:
    """Rotate the keys of ``cells`` by ``delta`` (positions, set to 0 as they are done), in all layers.

    Rotations of one plane add up (Su et al. 2021): what was turned by ``p`` and is turned by ``d`` stands as if it had
    been turned by ``p + d``. Keys are read as float32 and written back in the cache's type, so each round of a 16-bit
    or quantized cache rounds once more.

    Raises:
        ComputeError: a device failed; cells whose delta is not 0 may be half done.
    """
    graph, part = None, None
    try:
        for begin in range(0, cells.size, CHUNK):
            chosen = cells[begin : begin + CHUNK]
            if graph is None or part is None or part.size != chosen.size:
                if graph is not None:
                    graph.close()
                graph = Graph()
                part = _Part(graph, storage, rotate, chosen.size)
                executor.allocate(graph)
            part.write(chosen, delta[chosen])
            executor.compute(graph)
            delta[chosen] = 0
    finally:
        if graph is not None:
            graph.close()


class _Part:
    """The graph for so many cells."""

    def __init__(self, graph: Graph, storage: KVStorage, rotate: Rotate, size: int) -> None:
        self.size = size
        self._sources = graph.input(DType.I32, size, name="shift_sources")
        self._targets = graph.input(DType.I64, size, name="shift_targets")
        self._delta = graph.input(DType.I32, size, name="shift_delta")
        for layer, shape in storage.shapes.items():
            keys = storage.keys[layer]
            rows = ops.reshape(ops.get_rows(keys, self._sources), shape.d_k, shape.n_head_kv, size)
            turned = rotate(layer, rows, self._delta)
            flat = ops.reshape(turned if turned.is_contiguous else ops.cont(turned), keys.ne[0], size)
            graph.add(ops.set_rows(keys, flat, self._targets))

    def write(self, cells: Cells, delta: npt.NDArray[np.int32]) -> None:
        HostInput(self._sources, np.int32).write(cells.astype(np.int32))
        HostInput(self._targets, np.int64).write(cells)
        HostInput(self._delta, np.int32).write(delta)
