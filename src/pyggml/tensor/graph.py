"""A graph: nodes in an order in which they can be computed."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from pyggml._ffi import ffi, lib, not_null
from pyggml.closing import Closing
from pyggml.errors import BackendError, ClosedError, OutOfMemoryError

from .arena import Arena
from .display import dot
from .dtype import DType, dtype_of
from .tensor import Tensor

__all__ = ["Graph"]

STEP = 4096  # ggml visits operands recursively: deeper expressions are handed over in pieces


class Graph(Closing):
    """Nodes to compute, and the arena they live in.

    Make inputs with :meth:`input`, build nodes from them, name the results with :meth:`output`; an
    :class:`~pyggml.tensor.Executor` allocates and computes.
    """

    def __init__(self, *, size: int = 2048, arena: Arena | None = None) -> None:
        """An empty graph with room for ``size`` nodes; it grows by itself.

        Args:
            size: nodes, and as many leaves.
            arena: where the nodes live; default: an arena of its own, closed with the graph.
        """
        self.arena = arena or Arena()
        self._owns_arena = arena is None
        self._size = max(size, 16)
        self._context, self._ptr = _new_graph(self._size)
        self._tracker = not_null(lib.pyggml_tracker_new(), "creating a graph")
        self.allocated_as = 0
        """The executor's generation that allocated it; 0: no memory."""
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []

    @property
    def ptr(self) -> Any:
        if self._context is None:
            raise ClosedError("the graph was closed")
        if self.arena.closed:
            raise ClosedError(self.arena.closed)
        return self._ptr

    @property
    def size(self) -> int:
        """Nodes for which there is room at the moment."""
        return self._size

    def input(self, dtype: DType, *shape: int, name: str = "") -> Tensor:
        """A leaf whose data is set before each computation; ``shape`` in ggml order."""
        tensor = self.arena.new_tensor(dtype, shape, name=name)
        lib.ggml_set_input(tensor.ptr)
        self.inputs.append(tensor)
        return tensor

    def input_like(self, array: npt.NDArray[Any], *, name: str = "") -> Tensor:
        """A leaf of the type and shape of ``array``; its data must still be set after allocation."""
        return self.input(dtype_of(array), *(array.shape[::-1] or (1,)), name=name)

    def output(self, tensor: Tensor, *, name: str = "") -> Tensor:
        """Mark ``tensor`` as a result, whose memory is not reused, and add it with all it needs."""
        if name:
            tensor.name = name
        lib.ggml_set_output(tensor.ptr)
        self.outputs.append(tensor)
        self.add(tensor)
        return tensor

    def add(self, tensor: Tensor) -> None:
        """Add a node and everything it needs, in order. Nodes with side effects (``set_rows``) are added so."""
        graph = self.ptr
        self.forget_memory()
        if tensor.arena is not self.arena:
            self.arena.use(tensor.arena)
        first = self.n_items
        new = lib.pyggml_tracker_add(self._tracker, tensor.ptr)
        if new < 0:
            raise OutOfMemoryError(f"no memory for a graph of {first} nodes")
        nodes = lib.pyggml_tracker_n_nodes(self._tracker)
        while max(nodes, first + new - nodes) > self._size:
            graph = self._grow()
        for i in range(first + STEP, first + new, STEP):
            lib.ggml_build_forward_expand(graph, lib.pyggml_tracker_get(self._tracker, i))
        lib.ggml_build_forward_expand(graph, tensor.ptr)

    def _grow(self) -> Any:
        old_context, old = self._context, self._ptr
        self._size *= 2
        self._context, self._ptr = _new_graph(self._size)
        lib.ggml_graph_cpy(old, self._ptr)
        lib.ggml_free(old_context)
        return self._ptr

    # -- used by the executor -----------------------------------------------------------------------------------

    @property
    def n_items(self) -> int:
        """Nodes and leaves."""
        return int(lib.pyggml_tracker_n_items(self._tracker))

    def save(self) -> None:
        """Remember what an allocation will change."""
        if not lib.pyggml_tracker_save(self._tracker):
            raise OutOfMemoryError(f"no memory for a graph of {self.n_nodes} nodes")

    def operand(self, node: Any, i: int) -> Any:
        """Operand ``i`` of ``node``, not the copy that a scheduler may have put in its place."""
        return lib.pyggml_tracker_operand(self._tracker, node, i)

    def forget_memory(self) -> None:
        """Undo the last allocation: intermediate tensors have no memory any more."""
        if self.allocated_as and self._context is not None and not self.arena.closed:
            lib.pyggml_tracker_restore(self._tracker)
        self.allocated_as = 0

    # -- looking at it ------------------------------------------------------------------------------------------

    @property
    def n_nodes(self) -> int:
        return int(lib.ggml_graph_n_nodes(self.ptr))

    def nodes(self) -> list[Tensor]:
        """The nodes in the order of computation."""
        graph = self.ptr
        return [Tensor(lib.ggml_graph_node(graph, i), self.arena) for i in range(self.n_nodes)]

    def items(self) -> list[Tensor]:
        """Nodes and leaves, operands before their users."""
        _ = self.ptr
        return [Tensor(lib.pyggml_tracker_get(self._tracker, i), self.arena) for i in range(self.n_items)]

    def leaves(self) -> list[Tensor]:
        """The inputs, weights and constants."""
        return [t for t in self.items() if t.ptr.op == lib.GGML_OP_NONE]

    def find(self, name: str) -> Tensor:
        """The node or leaf called ``name``.

        Raises:
            BackendError: there is none.
        """
        ptr = lib.ggml_graph_get_tensor(self.ptr, name.encode())
        if ptr == ffi.NULL:
            raise BackendError(f"no tensor named {name!r} in a graph of {self.n_nodes} nodes")
        return Tensor(ptr, self.arena)

    def to_dot(self) -> str:
        """The graph in the language of Graphviz: one box per tensor, an arrow from each operand to its node."""
        return dot(self)

    def close(self) -> None:
        """Free the metadata; a second call does nothing."""
        if self._context is not None:
            lib.ggml_free(self._context)
            lib.pyggml_tracker_free(self._tracker)
            self._context = None
            self._ptr = self._tracker = ffi.NULL
            if self._owns_arena:
                self.arena.close()


def _new_graph(size: int) -> tuple[Any, Any]:
    params = ffi.new("struct ggml_init_params *")
    params.mem_size = lib.ggml_graph_overhead_custom(size, False) + 256
    params.no_alloc = True
    context = not_null(lib.ggml_init(params[0]), "creating a ggml context")
    return context, not_null(lib.ggml_new_graph_custom(context, size, False), f"creating a graph of {size} nodes")
