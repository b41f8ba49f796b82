"""Graph inputs that are written from numpy before each computation."""

import numpy as np
import numpy.typing as npt

from pyggml._ffi import ffi, lib
from pyggml.tensor import Tensor

__all__ = ["HostInput"]


class HostInput:
    """A graph input, and the numpy array in host memory that it is copied from."""

    def __init__(self, tensor: Tensor, dtype: npt.DTypeLike) -> None:
        self.tensor = tensor
        self.staging: npt.NDArray[np.generic] = np.zeros(tensor.n_elements, dtype)
        self._address = ffi.cast("void *", self.staging.ctypes.data)

    @property
    def address(self) -> object:
        """Where :meth:`flush` copies from."""
        return self._address

    def write(self, values: npt.NDArray[np.generic]) -> None:
        """Set all elements."""
        self.staging[...] = values
        self.flush()

    def flush(self) -> None:
        """Copy :attr:`staging` to the tensor."""
        lib.ggml_backend_tensor_set(self.tensor.ptr, self._address, 0, self.staging.nbytes)
