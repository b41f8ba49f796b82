"""One ``ggml_backend_sched``: the memory of one graph that is split over several back ends."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

from pyggml._ffi import ffi, lib, not_null
from pyggml.closing import Closing

from .buffer import BufferUsage
from .device import Backend
from .graph import Graph

__all__ = ["Scheduler", "readers_of_host_memory"]

# Operations that read a whole cache: where it lies in the host's memory, copying it to another device costs more.
READERS = frozenset((lib.GGML_OP_FLASH_ATTN_EXT, lib.GGML_OP_MUL_MAT))


class Scheduler(Closing):
    """Splits one graph at a time over back ends and gives it memory. Once allocated, it is computed without another
    look at how it is split.
    """

    def __init__(self, backends: Sequence[Backend], *, graph_size: int, op_offload: bool) -> None:
        """See :class:`~pyggml.tensor.Executor`; ``graph_size`` is fixed here."""
        self.backends = list(backends)
        self.graph_size = graph_size
        self._graph: Callable[[], Graph | None] = lambda: None
        array = ffi.new("ggml_backend_t[]", [b.ptr for b in backends])
        raw = lib.ggml_backend_sched_new(array, ffi.NULL, len(self.backends), graph_size, False, op_offload)
        self.ptr: Any = not_null(raw, "creating a scheduler")

    @property
    def graph(self) -> Graph | None:
        """The graph that has memory in it; None also when that graph is gone or lost its memory."""
        graph = self._graph()
        return graph if graph is not None and graph.allocated_as else None

    def _reset(self, on_host: Sequence[Any]) -> None:
        lib.ggml_backend_sched_reset(self.ptr)
        host = self.backends[-1].ptr
        for node in on_host:
            lib.ggml_backend_sched_set_tensor_backend(self.ptr, node, host)

    def forget(self) -> None:
        """Take the memory from the graph that has it."""
        graph, self._graph = self._graph(), lambda: None
        if graph is not None:
            graph.forget_memory()

    def reserve(self, graph: Graph, on_host: Sequence[Any]) -> bool:
        """Make the buffers large enough for ``graph``, whose nodes ``on_host`` run on the CPU; False: a device has no
        room.
        """
        self._reset(on_host)
        ok = lib.ggml_backend_sched_reserve(self.ptr, graph.ptr)
        lib.ggml_backend_sched_reset(self.ptr)
        return bool(ok)

    def measure(self, graph: Graph, on_host: Sequence[Any]) -> list[int] | None:
        """Bytes that ``graph`` needs on each back end, without taking them; None: they cannot be had."""
        if on_host:  # ggml forgets such wishes when it only measures
            return self.sizes() if self.reserve(graph, on_host) else None
        sizes = ffi.new("size_t[]", len(self.backends))
        lib.ggml_backend_sched_reserve_size(self.ptr, graph.ptr, sizes)
        lib.ggml_backend_sched_reset(self.ptr)
        # Back ends with one type of buffer share it.
        types = [lib.ggml_backend_sched_get_buffer_type(self.ptr, b.ptr) for b in self.backends]
        return [0 if types[i] in types[:i] else int(n) for i, n in enumerate(sizes)]

    def allocate(self, graph: Graph, on_host: Sequence[Any]) -> bool:
        """Give ``graph``, laid out by :meth:`reserve` just now, its memory; False: a device has no room."""
        self._reset(on_host)
        ok = lib.ggml_backend_sched_alloc_graph(self.ptr, graph.ptr)
        self._graph = weakref.ref(graph)
        return bool(ok)

    def sizes(self) -> list[int]:
        """Bytes of the buffers on each back end."""
        return [int(lib.ggml_backend_sched_get_buffer_size(self.ptr, b.ptr)) for b in self.backends]

    @property
    def n_splits(self) -> int:
        """Into how many parts the last graph was cut."""
        return int(lib.ggml_backend_sched_get_n_splits(self.ptr))

    def close(self) -> None:
        """Free the buffers; a second call does nothing."""
        if self.ptr != ffi.NULL:
            self.forget()
            lib.ggml_backend_sched_free(self.ptr)
            self.ptr = ffi.NULL


def readers_of_host_memory(graph: Graph) -> list[Any]:
    """Nodes that read a static tensor, not a weight, in the CPU's memory: attention over a KV cache."""
    found, ptr = [], graph.ptr
    for i in range(graph.n_nodes):
        node = lib.ggml_graph_node(ptr, i)
        if node.op in READERS and any(_is_static_on_host(node.src[k]) for k in range(3)):
            found.append(node)
    return found


def _is_static_on_host(tensor: Any) -> bool:
    if tensor == ffi.NULL or tensor.view_src == ffi.NULL:
        return False
    buffer = tensor.view_src.buffer
    return bool(
        buffer != ffi.NULL
        and lib.ggml_backend_buffer_get_usage(buffer) == BufferUsage.ANY
        and lib.ggml_backend_buffer_is_host(buffer)
    )
