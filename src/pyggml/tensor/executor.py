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
from .scheduler import Scheduler, readers_of_host_memory

__all__ = ["Executor"]

MAX_BACKENDS = 16  # GGML_SCHED_MAX_BACKENDS, which no header exports
MAX_SMALL = 7
SMALL = 8  # a small graph needs at most this part of what was reserved


class Executor(Closing):
    """Runs graphs on one or several back ends (``ggml_gallocr`` or ``ggml_backend_sched``).

    With a single back end, several graphs may be allocated at once: they share one buffer, so an allocation lasts until
    :attr:`generation` changes, and results until another graph runs. With several back ends, of which the last must be
    the CPU, a large graph takes the place of the one before it; graphs that are small beside what :meth:`reserve` took
    (those that decode) keep memory of their own, so that a few of them can be computed in turn. :meth:`holds` tells.
    Closing a back end closes its executors first.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        *,
        graph_size: int = 8192,
        op_offload: bool = True,
        keep_on_host: bool = False,
        dry: bool = False,
    ) -> None:
        """Make an executor without buffers.

        Args:
            backends: the fastest first; with several of them the last must be the CPU.
            graph_size: nodes and leaves of a graph on several back ends; grows by itself.
            op_offload: let a faster back end copy weights from the CPU's memory for large batches.
            keep_on_host: with several back ends, attention over a cache in the CPU's memory runs there, instead of
                copying the cache to a faster one.
            dry: :meth:`reserve` takes nothing and counts (:attr:`sizes`); nothing can be computed.
        """
        if not backends:
            raise ParameterError("an executor needs at least one back end")
        if len(backends) > 1 and not backends[-1].device.is_cpu:
            raise ParameterError("with several back ends the last one must be the CPU, which can run every operation")
        if len(backends) > MAX_BACKENDS:
            raise ParameterError(f"at most {MAX_BACKENDS} back ends, got {len(backends)}")
        self.backends = list(backends)
        self.generation = 1
        self.dry = dry
        self._counted = [0] * len(backends)
        self._op_offload = op_offload
        self._keep_on_host = keep_on_host
        self._gallocr: Any = ffi.NULL
        self._main: Scheduler | None = None
        self._small: list[Scheduler] = []
        self._probe: Scheduler | None = None
        self._active: Scheduler | None = None
        self._nothing: Buffer | None = None
        self._graphs: weakref.WeakSet[Graph] = weakref.WeakSet()
        if len(backends) == 1:
            buffer_type = lib.ggml_backend_get_default_buffer_type(backends[0].ptr)
            self._gallocr = not_null(lib.ggml_gallocr_new(buffer_type), "creating a graph allocator")
        else:
            self._main = self._active = Scheduler(backends, graph_size=graph_size, op_offload=self._op_offload)
        for backend in backends:
            backend.users.add(self)

    @property
    def scheduled(self) -> bool:
        """Whether graphs are split over several back ends."""
        return len(self.backends) > 1

    @property
    def scheduler(self) -> Any:
        """The ``ggml_backend_sched_t`` of the graph that was allocated or computed last; NULL with one back end."""
        return ffi.NULL if self._active is None else self._active.ptr

    def _need_open(self) -> None:
        if self._main is None and self._gallocr == ffi.NULL:
            raise ClosedError("the executor was closed")

    def _forget(self, *, but: Graph | None = None) -> None:
        """The buffers moved or are laid out anew: no other graph has memory any more."""
        for graph in list(self._graphs):
            if graph is not but:
                graph.forget_memory()
                self._graphs.discard(graph)

    def _start(self, graph: Graph) -> Any:
        self._need_open()
        ptr = graph.ptr
        if (before := self._scheduler_of(graph)) is not None:
            before.forget()
        graph.forget_memory()
        graph.save()
        return ptr

    def _undo(self, graph: Graph) -> None:
        """Splitting replaced operands by copies, and reserving may have left addresses."""
        graph.allocated_as = self.generation
        graph.forget_memory()
        graph.save()

    def reserve(self, graph: Graph) -> None:
        """Make the buffers large enough for ``graph``; data of graphs allocated before is lost.

        Raises:
            OutOfMemoryError: a device has no room.
        """
        ptr = self._start(graph)
        if self.dry:
            self._count(graph, ptr)
            return
        self._forget()
        if self._main is not None:
            main = self._main_for(graph)
            main.forget()
            ok = main.reserve(graph, self._on_host(graph))
        else:
            ok = lib.ggml_gallocr_reserve(self._gallocr, ptr)
        self.generation += 1
        self._undo(graph)
        graph.allocated_as = 0
        if not ok:
            raise self._no_room(graph)

    def _count(self, graph: Graph, ptr: Any) -> None:
        if self._main is not None:
            sizes = self._main_for(graph).measure(graph, self._on_host(graph))
        else:
            array = ffi.new("size_t[1]")
            lib.ggml_gallocr_reserve_n_size(self._gallocr, ptr, ffi.NULL, ffi.NULL, array)
            sizes = [int(array[0])]
        self._undo(graph)
        graph.allocated_as = 0
        if sizes is None:
            raise self._no_room(graph)
        self._counted = [max(pair) for pair in zip(self._counted, sizes, strict=True)]

    def _no_room(self, graph: Graph) -> OutOfMemoryError:
        return OutOfMemoryError(f"no room for the intermediate results of a graph of {graph.n_nodes} nodes")

    def allocate(self, graph: Graph) -> None:
        """Give the graph's tensors memory; its inputs can then be set.

        Raises:
            OutOfMemoryError: a device has no room.
            BackendError: the executor is dry.
        """
        if self.dry:
            raise BackendError("a dry executor only counts; make one without dry=True to compute")
        ptr = self._start(graph)
        ok = self._allocate_alone(graph, ptr) if self._main is None else self._allocate_scheduled(graph)
        graph.allocated_as = self.generation
        self._graphs.add(graph)
        if not ok:
            graph.forget_memory()
            raise self._no_room(graph)

    def _allocate_alone(self, graph: Graph, ptr: Any) -> bool:
        before = self.n_bytes
        # ggml takes any graph of as many nodes for the one it laid out last: lay out again, which is cheap.
        ok = lib.ggml_gallocr_reserve(self._gallocr, ptr)
        if self.n_bytes != before:
            self.generation += 1
            self._forget(but=graph)
        if not self.n_bytes:
            self._place_empty(graph)
        return bool(ok and lib.ggml_gallocr_alloc_graph(self._gallocr, ptr))

    def _place_empty(self, graph: Graph) -> None:
        """A buffer of no bytes has no address, and ggml then takes tensors without elements for unallocated ones."""
        if self._nothing is None:
            self._nothing = Buffer.on(self.backends[-1].device, 1)
        for tensor in graph.items():
            ptr = tensor.ptr
            if ptr.data == ffi.NULL and ptr.view_src == ffi.NULL:
                self._nothing.place(tensor, 0)

    # -- several back ends --------------------------------------------------------------------------------------

    def _main_for(self, graph: Graph) -> Scheduler:
        """A scheduler asserts that its table holds every node and leaf: replace one that is too small."""
        main = self._main
        if main is None:
            raise ClosedError("the executor was closed")
        if graph.n_items > main.graph_size:
            main.close()
            size = max(2 * main.graph_size, graph.n_items)
            main = self._main = self._active = Scheduler(self.backends, graph_size=size, op_offload=self._op_offload)
        return main

    def _allocate_scheduled(self, graph: Graph) -> bool:
        on_host = self._on_host(graph)
        scheduler = self._small_for(graph, on_host) or self._main_for(graph)
        scheduler.forget()
        self._used(scheduler)
        # Lays out again, see _allocate_alone().
        if not scheduler.reserve(graph, on_host):
            return False
        self._undo(graph)
        if not sum(scheduler.sizes()):
            self._place_empty(graph)
        return scheduler.allocate(graph, on_host)

    def _on_host(self, graph: Graph) -> list[Any]:
        """Looked up before splitting, which puts copies in the place of operands."""
        return readers_of_host_memory(graph) if self._keep_on_host else []

    def _small_for(self, graph: Graph, on_host: list[Any]) -> Scheduler | None:
        """A scheduler of its own for a graph that needs little memory: a free one, or the one that waited longest."""
        reserved = sum(self._main.sizes()) if self._main is not None else 0
        if not reserved:
            return None
        if self._probe is None or self._probe.graph_size < graph.n_items:
            self._probe = self._replace(self._probe, graph)
        sizes = self._probe.measure(graph, on_host)
        self._undo(graph)
        if on_host:  # it was laid out in real memory
            self._probe.close()
            self._probe = None
        if sizes is None or SMALL * sum(sizes) > reserved:
            return None
        chosen = next((s for s in self._small if s.graph is None), None)
        if chosen is None and len(self._small) == MAX_SMALL:
            chosen = self._small[0]
        if chosen is None or chosen.graph_size < graph.n_items:
            if chosen is not None:
                self._small.remove(chosen)
            chosen = self._replace(chosen, graph)
            self._small.append(chosen)
        return chosen

    def _replace(self, old: Scheduler | None, graph: Graph) -> Scheduler:
        if old is not None:
            old.close()
        return Scheduler(self.backends, graph_size=max(1024, 2 * graph.n_items), op_offload=self._op_offload)

    def _used(self, scheduler: Scheduler) -> None:
        self._active = scheduler
        if scheduler is not self._main and self._small[-1] is not scheduler:
            self._small.remove(scheduler)
            self._small.append(scheduler)

    def _scheduler_of(self, graph: Graph) -> Scheduler | None:
        everyone = [self._active, self._main, *self._small]
        return next((s for s in everyone if s is not None and s.graph is graph), None)

    # -- computing ----------------------------------------------------------------------------------------------

    def holds(self, graph: Graph) -> bool:
        """Whether ``graph`` has memory in this executor and can be computed."""
        if graph.allocated_as == 0 or graph not in self._graphs:
            return False
        return graph.allocated_as == self.generation if self._main is None else self._scheduler_of(graph) is not None

    def compute(self, graph: Graph, *, checked: bool = False) -> None:
        """Compute an allocated graph and wait for it.

        Args:
            graph: allocated by this executor, which still :meth:`holds` it; inputs set.
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
        _ = graph.ptr
        if not self.holds(graph):
            raise BackendError("the graph has no memory in this executor (any more): allocate() it first")
        if self._main is not None and (scheduler := self._scheduler_of(graph)) is not None:
            self._used(scheduler)

    def run(self, ptr: Any) -> None:
        """Compute a ``ggml_cgraph *`` whose tensors have memory."""
        if self._active is not None:
            check_status(lib.ggml_backend_sched_graph_compute(self._active.ptr, ptr), "computing a graph")
        else:
            check_status(lib.ggml_backend_graph_compute(self.backends[0].ptr, ptr), "computing a graph")

    @property
    def sizes(self) -> list[int]:
        """Bytes of the buffers for intermediate results on each back end; what they would be in a dry executor."""
        self._need_open()
        if self.dry:
            return list(self._counted)
        if self._main is not None:
            each = [scheduler.sizes() for scheduler in (self._main, *self._small)]
            return [sum(column) for column in zip(*each, strict=True)]
        return [int(lib.ggml_gallocr_get_buffer_size(self._gallocr, 0))]

    @property
    def n_bytes(self) -> int:
        """Bytes of the buffers for intermediate results, over all back ends."""
        return sum(self.sizes)

    @property
    def n_splits(self) -> int:
        """Into how many parts the last graph was cut between back ends."""
        return self._active.n_splits if self._active is not None else 1

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
        for scheduler in (self._main, self._probe, *self._small):
            if scheduler is not None:
                scheduler.close()
        self._gallocr = ffi.NULL
        self._main = self._active = self._probe = None
        self._small = []
