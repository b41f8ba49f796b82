"""Memory for a graph's intermediate results, and running it."""

import weakref
from collections.abc import Sequence
from typing import Any

from pyggml._ffi import check_status, ffi, lib, not_null
from pyggml.closing import Closing
from pyggml.errors import BackendError, ClosedError, OutOfMemoryError, ParameterError

from .buffer import Buffer
from .checked import compute_checked
from .device import Backend
from .graph import Graph
from .profile import NodeTime, profile

__all__ = ["Executor"]

MAX_BACKENDS = 16  # GGML_SCHED_MAX_BACKENDS, which no header exports


class Executor(Closing):
    """Runs graphs on one or several back ends (``ggml_gallocr`` or ``ggml_backend_sched``).

    With a single back end, several graphs may be allocated at once: they share one buffer, so an allocation lasts until
    :attr:`generation` changes, and results until another graph runs. With several back ends, one graph at a time is
    allocated; the CPU must be the last back end. Closing a back end closes its executors first.
    """

    def __init__(self, backends: Sequence[Backend], *, graph_size: int = 8192, op_offload: bool = True) -> None:
        """Make an executor without buffers.

        Args:
            backends: the fastest first; with several of them the last must be the CPU.
            graph_size: nodes and leaves of a graph on several back ends; grows by itself.
            op_offload: let a faster back end copy weights from the CPU's memory for large batches.
        """
        if not backends:
            raise ParameterError("an executor needs at least one back end")
        if len(backends) > 1 and not backends[-1].device.is_cpu:
            raise ParameterError("with several back ends the last one must be the CPU, which can run every operation")
        if len(backends) > MAX_BACKENDS:
            raise ParameterError(f"at most {MAX_BACKENDS} back ends, got {len(backends)}")
        self.backends = list(backends)
        self.generation = 1
        self.graph_size = graph_size
        self._op_offload = op_offload
        self._gallocr: Any = ffi.NULL
        self._sched: Any = ffi.NULL
        self._current: Any = ffi.NULL
        self._nothing: Buffer | None = None
        self._graphs: weakref.WeakSet[Graph] = weakref.WeakSet()
        if len(backends) == 1:
            buffer_type = lib.ggml_backend_get_default_buffer_type(backends[0].ptr)
            self._gallocr = not_null(lib.ggml_gallocr_new(buffer_type), "creating a graph allocator")
        else:
            self._sched = self._new_sched(graph_size, op_offload)
        for backend in backends:
            backend.users.add(self)

    def _new_sched(self, graph_size: int, op_offload: bool) -> Any:
        array = ffi.new("ggml_backend_t[]", [b.ptr for b in self.backends])
        raw = lib.ggml_backend_sched_new(array, ffi.NULL, len(self.backends), graph_size, False, op_offload)
        return not_null(raw, "creating a scheduler")

    @property
    def scheduled(self) -> bool:
        """Whether graphs are split over several back ends."""
        return bool(self._sched != ffi.NULL)

    @property
    def scheduler(self) -> Any:
        """The ``ggml_backend_sched_t``; NULL with a single back end."""
        return self._sched

    def _need_open(self) -> None:
        if self._sched == ffi.NULL and self._gallocr == ffi.NULL:
            raise ClosedError("the executor was closed")

    def _need_room(self, graph: Graph) -> None:
        """A scheduler asserts that its table holds every node and leaf: replace one that is too small."""
        if self.scheduled and graph.n_items > self.graph_size:
            self._forget()
            lib.ggml_backend_sched_free(self._sched)
            self._sched = ffi.NULL
            self.graph_size = max(2 * self.graph_size, graph.n_items)
            self._sched = self._new_sched(self.graph_size, self._op_offload)
            self.generation += 1

    def _forget(self, *, but: Graph | None = None) -> None:
        """The buffers moved or are laid out anew: no other graph has memory any more."""
        for graph in list(self._graphs):
            if graph is not but:
                graph.forget_memory()
                self._graphs.discard(graph)

    def _start(self, graph: Graph) -> Any:
        self._need_open()
        ptr = graph.ptr
        self._need_room(graph)
        graph.forget_memory()
        graph.save()
        return ptr

    def reserve(self, graph: Graph) -> None:
        """Make the buffers large enough for ``graph``; data of graphs allocated before is lost.

        Raises:
            OutOfMemoryError: a device has no room.
        """
        ptr = self._start(graph)
        self._forget()
        if self.scheduled:
            lib.ggml_backend_sched_reset(self._sched)
            ok = lib.ggml_backend_sched_reserve(self._sched, ptr)
            lib.ggml_backend_sched_reset(self._sched)
            self._current = ffi.NULL
        else:
            ok = lib.ggml_gallocr_reserve(self._gallocr, ptr)
        self.generation += 1
        graph.allocated_as = self.generation
        graph.forget_memory()
        if not ok:
            raise OutOfMemoryError(f"no room for the intermediate results of a graph of {graph.n_nodes} nodes")

    def allocate(self, graph: Graph) -> None:
        """Give the graph's tensors memory; its inputs can then be set.

        Raises:
            OutOfMemoryError: a device has no room.
        """
        ptr = self._start(graph)
        before = self.n_bytes
        if self.scheduled:
            self._forget(but=graph)
            ok = self._allocate_scheduled(graph, ptr)
            self._current = ptr
            self.generation += 1
        else:
            # ggml takes any graph of as many nodes for the one it laid out last: lay out again, which is cheap.
            ok = lib.ggml_gallocr_reserve(self._gallocr, ptr)
            if self.n_bytes != before:
                self.generation += 1
                self._forget(but=graph)
            if not self.n_bytes:
                self._place_empty(graph)
            ok = ok and lib.ggml_gallocr_alloc_graph(self._gallocr, ptr)
        graph.allocated_as = self.generation
        self._graphs.add(graph)
        if not ok:
            graph.forget_memory()
            raise OutOfMemoryError(f"no room for the intermediate results of a graph of {graph.n_nodes} nodes")

    def _place_empty(self, graph: Graph) -> None:
        """A buffer of no bytes has no address, and ggml then takes tensors without elements for unallocated ones."""
        if self._nothing is None:
            self._nothing = Buffer.on(self.backends[-1].device, 1)
        for tensor in graph.items():
            ptr = tensor.ptr
            if ptr.data == ffi.NULL and ptr.view_src == ffi.NULL:
                self._nothing.place(tensor, 0)

    def _allocate_scheduled(self, graph: Graph, ptr: Any) -> bool:
        lib.ggml_backend_sched_reset(self._sched)
        if not lib.ggml_backend_sched_reserve(self._sched, ptr):  # lays out again, see allocate()
            return False
        lib.ggml_backend_sched_reset(self._sched)
        graph.allocated_as = self.generation
        graph.forget_memory()  # splitting replaced operands by copies
        graph.save()
        if not self.n_bytes:
            self._place_empty(graph)
        return bool(lib.ggml_backend_sched_alloc_graph(self._sched, ptr))

    def compute(self, graph: Graph, *, checked: bool = False) -> None:
        """Compute an allocated graph and wait for it.

        Args:
            graph: allocated by this executor in this generation, inputs set.
            checked: read back every row index and expert index first and raise instead of letting ggml end the
                process (or read foreign memory) on one that is out of range. Slower; for data of unknown origin.

        Raises:
            ComputeError: a back end failed.
            BackendError: the graph is not allocated.
            ParameterError: ``checked`` found an index that is out of range.
        """
        self.need_allocated(graph)
        if checked:
            compute_checked(self, graph)
        else:
            self.run(graph.ptr)
        for callback in graph.arena.callbacks:
            callback.raise_error()

    def need_allocated(self, graph: Graph) -> None:
        """Raise unless ``graph`` can be computed now.

        Raises:
            ClosedError: the executor, a back end, the graph or an arena was closed.
            BackendError: the graph is not allocated.
        """
        self._need_open()
        ptr = graph.ptr
        if graph.allocated_as != self.generation or graph not in self._graphs:
            raise BackendError("the graph has no memory in this executor (any more): allocate() it first")
        if self.scheduled and ptr != self._current:
            raise BackendError("with several back ends only the graph allocated last can be computed")

    def run(self, ptr: Any) -> None:
        """Compute a ``ggml_cgraph *`` whose tensors have memory."""
        if self.scheduled:
            check_status(lib.ggml_backend_sched_graph_compute(self._sched, ptr), "computing a graph")
        else:
            check_status(lib.ggml_backend_graph_compute(self.backends[0].ptr, ptr), "computing a graph")

    @property
    def n_bytes(self) -> int:
        """Bytes of the buffers for intermediate results, over all back ends."""
        self._need_open()
        if self.scheduled:
            sizes = (lib.ggml_backend_sched_get_buffer_size(self._sched, b.ptr) for b in self.backends)
            return int(sum(sizes))
        return int(lib.ggml_gallocr_get_buffer_size(self._gallocr, 0))

    @property
    def n_splits(self) -> int:
        """Into how many parts the last graph was cut between back ends."""
        return int(lib.ggml_backend_sched_get_n_splits(self._sched)) if self.scheduled else 1

    def profile(self, graph: Graph) -> list[NodeTime]:
        """Compute an allocated graph node by node and time each (slower than :meth:`compute` as a whole)."""
        self.need_allocated(graph)
        return profile(self, graph)

    def close(self) -> None:
        """Free the buffers; a second call does nothing. The back ends stay open."""
        self._forget()
        if self._nothing is not None:
            self._nothing.close()
        if self._gallocr != ffi.NULL:
            lib.ggml_gallocr_free(self._gallocr)
        if self._sched != ffi.NULL:
            lib.ggml_backend_sched_free(self._sched)
        self._gallocr = self._sched = self._current = ffi.NULL
