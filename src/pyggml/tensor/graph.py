"""A graph: nodes in an order in which they can be computed."""

from types import TracebackType
from typing import Any, Self

import numpy.typing as npt

from pyggml._ffi import ffi, lib, not_null
from pyggml.errors import BackendError

from .arena import Arena
from .dtype import DType, dtype_of
from .tensor import Tensor

__all__ = ["Graph"]


class Graph:
    """Nodes to compute, and the arena they live in.

    Make inputs with :meth:`input`, build nodes from them, name the results with :meth:`output`; an
    :class:`~pyggml.tensor.Executor` allocates and computes. Close it after the executor has forgotten it.
    """

    def __init__(self, *, size: int = 2048) -> None:
        """An empty graph with room for ``size`` nodes; it grows by itself."""
        self.arena = Arena()
        self._size = size
        self._context, self._ptr = _new_graph(size)
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []

    @property
    def ptr(self) -> Any:
        return self._ptr

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
        while True:
            before = self.n_nodes
            if lib.ggml_graph_size(self._ptr) - before > self._size // 2 or self._fits(tensor):
                lib.ggml_build_forward_expand(self._ptr, tensor.ptr)
                return
            self._grow()

    def _fits(self, tensor: Tensor) -> bool:
        """Count the nodes that adding ``tensor`` would bring (nodes and leaves share the hash table's room)."""
        seen: set[int] = set()
        stack = [tensor.ptr]
        room = lib.ggml_graph_size(self._ptr) - self.n_nodes
        while stack:
            ptr = stack.pop()
            key = int(ffi.cast("uintptr_t", ptr))
            if key in seen:
                continue
            seen.add(key)
            if len(seen) > room:
                return False
            stack.extend(s for s in ptr.src if s != ffi.NULL)
        return True

    def _grow(self) -> None:
        old_context, old = self._context, self._ptr
        self._size *= 2
        self._context, self._ptr = _new_graph(self._size)
        lib.ggml_graph_cpy(old, self._ptr)
        lib.ggml_free(old_context)

    @property
    def n_nodes(self) -> int:
        return int(lib.ggml_graph_n_nodes(self._ptr))

    def nodes(self) -> list[Tensor]:
        """The nodes in the order of computation."""
        return [Tensor(lib.ggml_graph_node(self._ptr, i), self.arena) for i in range(self.n_nodes)]

    def find(self, name: str) -> Tensor:
        """The node or leaf called ``name``.

        Raises:
            BackendError: there is none.
        """
        ptr = lib.ggml_graph_get_tensor(self._ptr, name.encode())
        if ptr == ffi.NULL:
            raise BackendError(f"no tensor named {name!r} in a graph of {self.n_nodes} nodes")
        return Tensor(ptr, self.arena)

    def close(self) -> None:
        """Free the metadata; a second call does nothing."""
        if self._context is not None:
            lib.ggml_free(self._context)
            self._context = None
            self._ptr = ffi.NULL
            self.arena.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _new_graph(size: int) -> tuple[Any, Any]:
    params = ffi.new("struct ggml_init_params *")
    params.mem_size = lib.ggml_graph_overhead_custom(size, False) + 256
    params.no_alloc = True
    context = not_null(lib.ggml_init(params[0]), "creating a ggml context")
    return context, not_null(
        lib.ggml_new_graph_custom(context, size, False), f"creating a graph of {size} nodes"
    )
