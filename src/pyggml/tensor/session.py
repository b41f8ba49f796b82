"""Computing on demand: arrays in, expressions, arrays out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyggml._ffi import ffi, lib
from pyggml.closing import Closing
from pyggml.errors import BackendError, ClosedError, ShapeError

from .arena import Arena
from .buffer import Buffer
from .device import Backend, Device, find_device
from .dtype import DType, dtype_of, quantize
from .executor import Executor
from .graph import Graph
from .profile import NodeTime
from .tensor import Tensor

__all__ = ["Session"]

VIEW_OPS = frozenset(("NONE", "VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE"))


class Session(Closing):
    """Tensors with data, and expressions of them that are computed when their value is asked for.

    .. code-block:: python

        with Session("CPU") as s:
            w = s.tensor(weights, dtype=DType.Q4_0)  # quantized on the way in
            x = s.tensor(activations)
            y = (x @ w.T).softmax()                  # nothing computed yet
            print(y.numpy())

    A value that was asked for is kept, so no node is computed twice for it. Operations that the device lacks run on
    the CPU. Indices are checked before they are used (``Executor.compute(checked=True)``). ``close()`` frees all.
    """

    def __init__(self, device: str | Device = "CPU", *, n_threads: int | None = None) -> None:
        """Open a device.

        Args:
            device: its name, ``"gpu"`` for the best one, or the object.
            n_threads: CPU threads; default: one per physical core.

        Raises:
            BackendError: there is no such device.
        """
        self.device = find_device(device) if isinstance(device, str) else device
        self.backends = [Backend(self.device, n_threads=n_threads)]
        if not self.device.is_cpu:
            self.backends.append(Backend(find_device("CPU"), n_threads=n_threads))
        self.executor = Executor(self.backends)
        self._data = Arena(static=True)
        self._nodes = Arena()
        self._nodes.on_demand = self.compute
        self._data.results = self._nodes
        self._closed = False

    # -- data in ------------------------------------------------------------------------------------------------

    def tensor(
        self,
        values: npt.ArrayLike,
        *,
        dtype: DType | None = None,
        name: str = "",
        importance: npt.ArrayLike | None = None,
    ) -> Tensor:
        """A tensor holding ``values``.

        Args:
            values: shape in numpy order, at most four dimensions.
            dtype: converted or quantized to it; default: the array's own type, float32 for float64 and lists.
            name: for displays and profiles.
            importance: one weight per column for quantization, which types below 2.5 bits need.

        Raises:
            DTypeError: ggml has no such type, or cannot quantize to it.
            ShapeError: more than four dimensions, or rows that are not whole blocks.
        """
        array = np.asarray(values)
        if dtype is None:
            if array.dtype == np.float64 or (not isinstance(values, np.ndarray) and array.dtype.kind == "f"):
                array = array.astype(np.float32)
            elif not isinstance(values, np.ndarray) and array.dtype.kind == "i":
                array = array.astype(np.int32)
            dtype = dtype_of(array)
        tensor = self.empty(dtype, *(array.shape[::-1] or (1,)), name=name)
        if importance is not None and dtype.is_quantized:
            tensor.set_bytes(quantize(array.reshape(-1, tensor.ne[0]), dtype, importance=importance))
        else:
            tensor.set(array)
        return tensor

    def empty(self, dtype: DType, *shape: int, name: str = "") -> Tensor:
        """A tensor with memory but without values; ``shape`` in ggml order.

        Raises:
            ShapeError: the shape is none.
            OutOfMemoryError: the device has no room.
        """
        self._need_open()
        if not shape:
            raise ShapeError("a tensor needs a shape")
        tensor = self._data.new_tensor(dtype, shape, name=name)
        self._place(tensor, self.device)
        return tensor

    def _place(self, tensor: Tensor, device: Device) -> None:
        size = lib.ggml_backend_buft_get_alloc_size(device.buffer_type, tensor.ptr)
        buffer = Buffer.on(device, size)
        self._data.buffers.append(buffer)
        buffer.place(tensor, 0)

    # -- computing ----------------------------------------------------------------------------------------------

    def compute(self, *tensors: Tensor) -> None:
        """Compute ``tensors`` together, each node once, and keep their values.

        Raises:
            ParameterError: an index is out of range.
            OutOfMemoryError: the device has no room.
            ComputeError: the device failed.
        """
        self._need_open()
        wanted = [t for t in tensors if not t.is_allocated or t.op not in VIEW_OPS]
        for tensor in wanted:
            if tensor.arena is not self._nodes:
                raise BackendError(f"{tensor!r} does not belong to this session")
        if wanted:
            self._run(wanted, timed=False)

    def profile(self, *tensors: Tensor) -> list[NodeTime]:
        """Compute ``tensors`` and say how long each node took; see :func:`~pyggml.tensor.profile.by_op`."""
        self._need_open()
        wanted = [t for t in tensors if not t.is_allocated]
        return self._run(wanted, timed=True) if wanted else []

    def _run(self, wanted: list[Tensor], *, timed: bool) -> list[NodeTime]:
        times: list[NodeTime] = []
        with Graph(arena=self._nodes) as graph:
            for tensor in wanted:
                graph.add(tensor)
            nodes = graph.nodes()
            lasting = [*wanted, *(n for n in nodes if _writes_in_place(n))]
            for tensor in lasting:
                self._keep(tensor)
            self._need_supported(nodes)
            self.executor.allocate(graph)
            if timed:
                times = self.executor.profile(graph)
            else:
                self.executor.compute(graph, checked=True)
            graph.forget_memory()
            for tensor in lasting:
                _become_leaf(tensor)
        return times

    def _keep(self, tensor: Tensor) -> None:
        """Memory that outlives the graph, for the tensor or for what it is a view of."""
        ptr = tensor.ptr
        root = tensor if ptr.view_src == ffi.NULL else Tensor(ptr.view_src, self._nodes)
        if root.ptr.data == ffi.NULL:
            fits = self.device.is_cpu or root.op in VIEW_OPS or self.device.supports_op(root)
            self._place(root, self.device if fits else self.backends[-1].device)
        if ptr.view_src != ffi.NULL and ptr.buffer == ffi.NULL:
            lib.ggml_backend_view_init(ptr)

    def _need_supported(self, nodes: list[Tensor]) -> None:
        """A scheduler cannot move a node that writes into memory of a device which lacks the operation."""
        if self.device.is_cpu:
            return
        for node in nodes:
            if _writes_in_place(node) and not self.device.supports_op(node):
                raise BackendError(
                    f"{self.device.name} cannot compute {node!r} in place; make a copy with cont() in a CPU session"
                )

    # -- closing ------------------------------------------------------------------------------------------------

    def _need_open(self) -> None:
        if self._closed:
            raise ClosedError("the session was closed")

    def close(self) -> None:
        """Free everything; the session's tensors cannot be used any more. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self.executor.close()
            self._nodes.close()
            self._data.close()
            for backend in self.backends:
                backend.close()


def _writes_in_place(node: Tensor) -> bool:
    """Whether a node changes the memory of another tensor."""
    return node.ptr.view_src != ffi.NULL and node.op not in VIEW_OPS


def _become_leaf(tensor: Tensor) -> None:
    """The value is there: later graphs take the tensor as data, whatever it was computed from."""
    ptr: Any = tensor.ptr
    ptr.op = lib.GGML_OP_NONE
    for i in range(len(ptr.src)):
        ptr.src[i] = ffi.NULL
