"""Memory for a graph's intermediate results, and running it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pyggml._ffi import check_status, eval_callback, ffi, lib, not_null
from pyggml.errors import BackendError, OutOfMemoryError, ParameterError

from .device import Backend
from .graph import Graph

__all__ = ["Executor", "NodeTime"]


@dataclass(frozen=True)
class NodeTime:
    """Seconds one node took, back end synchronised before and after."""

    op: str
    name: str
    shape: tuple[int, ...]
    seconds: float


class Executor:
    """Runs graphs on one or several back ends (``ggml_gallocr`` or ``ggml_backend_sched``).

    With a single back end, several graphs may be allocated at once: they share one buffer, so an allocation lasts until
    :attr:`generation` changes, and results until another graph runs. With several back ends, one graph at a time is
    allocated; the CPU must be the last back end.
    """

    def __init__(
        self, backends: Sequence[Backend], *, graph_size: int = 8192, op_offload: bool = True
    ) -> None:
        if not backends:
            raise ParameterError("an executor needs at least one back end")
        if len(backends) > 1 and not backends[-1].device.is_cpu:
            raise ParameterError(
                "with several back ends the last one must be the CPU, which can run every operation"
            )
        self.backends = list(backends)
        self.generation = 0
        self._gallocr: Any = ffi.NULL
        self._sched: Any = ffi.NULL
        self._current: Any = ffi.NULL
        if len(backends) == 1:
            buffer_type = lib.ggml_backend_get_default_buffer_type(backends[0].ptr)
            self._gallocr = not_null(lib.ggml_gallocr_new(buffer_type), "creating a graph allocator")
        else:
            self._sched = self._new_sched(graph_size, op_offload)

    def _new_sched(self, graph_size: int, op_offload: bool) -> Any:
        array = ffi.new("ggml_backend_t[]", [b.ptr for b in self.backends])
        raw = lib.ggml_backend_sched_new(array, ffi.NULL, len(self.backends), graph_size, False, op_offload)
        return not_null(raw, "creating a scheduler")

    @property
    def scheduled(self) -> bool:
        """Whether graphs are split over several back ends."""
        return bool(self._sched != ffi.NULL)

    def reserve(self, graph: Graph) -> None:
        """Make the buffers large enough for ``graph``; data of graphs allocated before is lost.

        Raises:
            OutOfMemoryError: a device has no room.
        """
        if self.scheduled:
            lib.ggml_backend_sched_reset(self._sched)
            ok = lib.ggml_backend_sched_reserve(self._sched, graph.ptr)
            lib.ggml_backend_sched_reset(self._sched)
            self._current = ffi.NULL
        else:
            ok = lib.ggml_gallocr_reserve(self._gallocr, graph.ptr)
        self.generation += 1
        if not ok:
            raise OutOfMemoryError(
                f"no room for the intermediate results of a graph of {graph.n_nodes} nodes"
            )

    def allocate(self, graph: Graph) -> None:
        """Give the graph's tensors memory; its inputs can then be set.

        Raises:
            OutOfMemoryError: a device has no room.
        """
        before = self.n_bytes
        if self.scheduled:
            lib.ggml_backend_sched_reset(self._sched)
            ok = lib.ggml_backend_sched_alloc_graph(self._sched, graph.ptr)
            self._current = graph.ptr
            self.generation += 1
        else:
            ok = lib.ggml_gallocr_alloc_graph(self._gallocr, graph.ptr)
            if self.n_bytes != before:
                self.generation += 1
        if not ok:
            raise OutOfMemoryError(
                f"no room for the intermediate results of a graph of {graph.n_nodes} nodes"
            )

    def compute(self, graph: Graph) -> None:
        """Compute an allocated graph and wait for it.

        Raises:
            ComputeError: a back end failed.
        """
        if self.scheduled:
            if graph.ptr != self._current:
                raise BackendError("with several back ends only the graph allocated last can be computed")
            check_status(lib.ggml_backend_sched_graph_compute(self._sched, graph.ptr), "computing a graph")
        else:
            check_status(lib.ggml_backend_graph_compute(self.backends[0].ptr, graph.ptr), "computing a graph")

    @property
    def n_bytes(self) -> int:
        """Bytes of the buffers for intermediate results, over all back ends."""
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
        if not self.scheduled:
            return self._profile_nodes(graph)
        times: list[NodeTime] = []
        start = [time.perf_counter()]

        def observe(tensor: Any, ask: bool) -> bool:
            if not ask:
                now = time.perf_counter()
                times.append(_node_time(tensor, now - start[0]))
                start[0] = time.perf_counter()
            return True

        with eval_callback(self._sched, observe):
            self.compute(graph)
        return times

    def _profile_nodes(self, graph: Graph) -> list[NodeTime]:
        backend, times = self.backends[0], []
        for i in range(graph.n_nodes):
            view = lib.ggml_graph_view(graph.ptr, i, i + 1) if hasattr(lib, "ggml_graph_view") else None
            if view is None:
                return self._profile_by_sched(graph)
            began = time.perf_counter()
            check_status(lib.ggml_backend_graph_compute(backend.ptr, ffi.addressof(view)), "computing a node")
            times.append(_node_time(lib.ggml_graph_node(graph.ptr, i), time.perf_counter() - began))
        return times

    def _profile_by_sched(self, graph: Graph) -> list[NodeTime]:
        raise BackendError("per-node timing needs an executor with several back ends in this ggml")

    def close(self) -> None:
        """Free the buffers; a second call does nothing. The back ends stay open."""
        if self._gallocr != ffi.NULL:
            lib.ggml_gallocr_free(self._gallocr)
        if self._sched != ffi.NULL:
            lib.ggml_backend_sched_free(self._sched)
        self._gallocr = self._sched = ffi.NULL

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _node_time(ptr: Any, seconds: float) -> NodeTime:
    op = str(ffi.string(lib.ggml_op_desc(ptr)).decode())
    return NodeTime(op, str(ffi.string(ptr.name).decode("utf-8", "replace")), tuple(ptr.ne), seconds)
