"""Computing with indices of unknown origin: each is checked before ggml uses it.

On the CPU an index that is out of range ends the process (``GGML_ASSERT`` in ``get_rows``, ``set_rows`` and
``add_id``) or reads foreign memory (``mul_mat_id``, ``ssm_scan``), and sorting a row with a NaN reads beyond it; on a
GPU the result is undefined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pyggml._ffi import eval_callback, ffi, lib
from pyggml.errors import ParameterError

from .profile import pieces
from .tensor import Tensor

if TYPE_CHECKING:
    from .executor import Executor
    from .graph import Graph

__all__ = ["compute_checked"]

SORTED = -1  # instead of a limit: the operand is sorted, and ggml's sort leaves the row when it meets a NaN


@dataclass(frozen=True)
class Use:
    """One operand of indices: which, and how many rows there are to choose from."""

    ids: Any
    limit: int
    op: str
    node: str

    def check(self, graph: Graph) -> None:
        """Raise when an index is out of range, or a value to be sorted is no number."""
        values = Tensor(self.ids, graph.arena).numpy()
        if self.limit == SORTED:
            if np.isnan(values).any():
                raise ParameterError(f"{self.op} {self.node!r}: NaN has no place in an order")
            return
        if values.size and not (int(values.min()) >= 0 and int(values.max()) < self.limit):
            bad = values[(values < 0) | (values >= self.limit)]
            raise ParameterError(
                f"{self.op} {self.node!r}: indices must be 0 to {self.limit - 1}, got {int(np.ravel(bad)[0])}"
            )


def _limit(ptr: Any, src: Any) -> tuple[int, int] | None:
    """Which operand holds indices, and their limit."""
    op = ptr.op
    if op == lib.GGML_OP_GET_ROWS:
        return 1, src[0].ne[1]
    if op == lib.GGML_OP_SET_ROWS:
        return 1, ptr.ne[1]
    if op == lib.GGML_OP_MUL_MAT_ID:
        return 2, src[0].ne[2]
    if op == lib.GGML_OP_ADD_ID:
        return 2, src[1].ne[1]
    if op == lib.GGML_OP_SSM_SCAN:
        return 6, src[0].ne[3]
    if op == lib.GGML_OP_GET_ROWS_BACK:
        return 1, ptr.ne[1]
    if op in (lib.GGML_OP_ARGSORT, lib.GGML_OP_TOP_K):
        return 0, SORTED
    return None


def _uses(graph: Graph) -> list[tuple[int, Use]]:
    """Every use of indices, with the position of its node."""
    found = []
    ptr = graph.ptr
    for i in range(graph.n_nodes):
        node = lib.ggml_graph_node(ptr, i)
        limit = _limit(node, node.src)
        if limit is not None:
            op = str(ffi.string(lib.ggml_op_desc(node)).decode())
            name = str(ffi.string(node.name).decode("utf-8", "replace"))
            found.append((i, Use(graph.operand(node, limit[0]), limit[1], op, name)))
    return found


def compute_checked(executor: Executor, graph: Graph) -> None:
    """Compute ``graph``; indices that the graph itself computes are checked on the way.

    Raises:
        ParameterError: an index is out of range; what came before it in the graph is computed.
    """
    uses = _uses(graph)
    if not uses:
        executor.run(graph.ptr)
    elif executor.scheduled:
        _observed(executor, graph, uses)
    else:
        _in_pieces(executor, graph, uses)


def _in_pieces(executor: Executor, graph: Graph, uses: list[tuple[int, Use]]) -> None:
    ptr, start, n_nodes = graph.ptr, 0, graph.n_nodes
    with pieces(executor, n_nodes) as runner:
        for position, use in uses:
            if position > start and not _is_given(use.ids):
                runner.run(lib.ggml_graph_node(ptr, i) for i in range(start, position))
                start = position
            use.check(graph)
        runner.run(lib.ggml_graph_node(ptr, i) for i in range(start, n_nodes))


def _is_given(ids: Any) -> bool:
    """Whether the indices were there before the graph ran."""
    while ids.op in (lib.GGML_OP_VIEW, lib.GGML_OP_RESHAPE, lib.GGML_OP_PERMUTE, lib.GGML_OP_TRANSPOSE):
        ids = ids.src[0]
    return bool(ids.op == lib.GGML_OP_NONE)


def _observed(executor: Executor, graph: Graph, uses: list[tuple[int, Use]]) -> None:
    waiting: dict[int, list[Use]] = {}
    errors: list[ParameterError] = []
    for position, use in uses:
        if use.limit == 0 and lib.ggml_nelements(use.ids):
            raise ParameterError(f"{use.op} {use.node!r}: there is no row to choose from")
        if _is_given(use.ids):
            use.check(graph)
        elif position > 0:
            before = lib.ggml_graph_node(graph.ptr, position - 1)
            waiting.setdefault(int(ffi.cast("uintptr_t", before)), []).append(use)

    def observe(tensor: Any, ask: bool) -> bool:
        due = waiting.get(int(ffi.cast("uintptr_t", tensor)), [])
        for use in () if ask else due:
            try:
                use.check(graph)
            except ParameterError as error:
                errors.append(error)
                # A scheduler cannot be stopped between its splits: let the rest run on the first row.
                lib.ggml_backend_tensor_memset(use.ids, 0, 0, lib.ggml_nbytes(use.ids))
        return bool(due) or not ask

    with eval_callback(executor.scheduler, observe):
        executor.run(graph.ptr)
    if errors:
        raise errors[0]
