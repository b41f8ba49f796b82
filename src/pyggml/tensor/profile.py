"""Timing node by node, and running parts of a graph."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyggml._ffi import eval_callback, ffi, lib, not_null

if TYPE_CHECKING:
    from .executor import Executor
    from .graph import Graph

__all__ = ["NodeTime", "OpTime", "by_op", "profile", "table"]

VIEWS = frozenset(("NONE", "VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE"))


@dataclass(frozen=True)
class NodeTime:
    """Seconds one node took, back end synchronised before and after."""

    op: str
    name: str
    shape: tuple[int, ...]
    seconds: float


@dataclass(frozen=True)
class OpTime:
    """All nodes of one operation."""

    op: str
    count: int
    seconds: float


class Pieces:
    """Runs parts of a graph that a single back end has allocated (``ggml_graph_add_node``)."""

    def __init__(self, executor: Executor, context: Any, n_nodes: int) -> None:
        self._executor = executor
        self._ptr = not_null(lib.ggml_new_graph_custom(context, n_nodes, False), "creating a graph")

    def run(self, nodes: Iterable[Any]) -> None:
        lib.ggml_graph_clear(self._ptr)
        for node in nodes:
            lib.ggml_graph_add_node(self._ptr, node)
        self._executor.run(self._ptr)


@contextmanager
def pieces(executor: Executor, n_nodes: int) -> Iterator[Pieces]:
    """A runner for up to ``n_nodes`` nodes at a time."""
    params = ffi.new("struct ggml_init_params *")
    params.mem_size = lib.ggml_graph_overhead_custom(n_nodes, False) + 256
    params.no_alloc = True
    context = not_null(lib.ggml_init(params[0]), "creating a ggml context")
    try:
        yield Pieces(executor, context, n_nodes)
    finally:
        lib.ggml_free(context)


def profile(executor: Executor, graph: Graph) -> list[NodeTime]:
    """Compute an allocated graph and time each node. Views, which cost nothing, are left out."""
    return _observed(executor, graph) if executor.scheduled else _one_by_one(executor, graph)


def _observed(executor: Executor, graph: Graph) -> list[NodeTime]:
    times: list[NodeTime] = []
    start = [time.perf_counter()]

    def observe(tensor: Any, ask: bool) -> bool:
        if not ask:
            _record(times, tensor, time.perf_counter() - start[0])
            start[0] = time.perf_counter()
        return True

    with eval_callback(executor.scheduler, observe):
        executor.run(graph.ptr)
    return times


def _one_by_one(executor: Executor, graph: Graph) -> list[NodeTime]:
    times: list[NodeTime] = []
    ptr = graph.ptr
    with pieces(executor, 1) as runner:
        for i in range(graph.n_nodes):
            node = lib.ggml_graph_node(ptr, i)
            began = time.perf_counter()
            runner.run((node,))
            _record(times, node, time.perf_counter() - began)
    return times


def _record(times: list[NodeTime], ptr: Any, seconds: float) -> None:
    op = str(ffi.string(lib.ggml_op_desc(ptr)).decode())
    if op not in VIEWS:
        name = str(ffi.string(ptr.name).decode("utf-8", "replace"))
        times.append(NodeTime(op, name, tuple(ptr.ne), seconds))


def by_op(times: Iterable[NodeTime]) -> list[OpTime]:
    """Totals per operation, the most expensive first."""
    totals: dict[str, list[float]] = {}
    for node in times:
        totals.setdefault(node.op, []).append(node.seconds)
    found = [OpTime(op, len(seconds), sum(seconds)) for op, seconds in totals.items()]
    return sorted(found, key=lambda total: -total.seconds)


def table(times: Iterable[NodeTime]) -> str:
    """The totals as text: operation, count, milliseconds, share."""
    totals = by_op(times)
    whole = sum(t.seconds for t in totals) or 1.0
    lines = [f"{'operation':<20} {'count':>6} {'ms':>10} {'share':>6}"]
    lines += [f"{t.op:<20} {t.count:>6} {t.seconds * 1e3:>10.3f} {t.seconds / whole:>6.1%}" for t in totals]
    return "\n".join(lines)
