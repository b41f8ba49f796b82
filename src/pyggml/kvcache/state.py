"""What a sequence's part of a cache looks like outside of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pyggml.errors import ParameterError

__all__ = ["CacheState"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class CacheState:
    """The first ``length`` positions of a sequence, as plain arrays by name: store them as they are.

    A :class:`~pyggml.kvcache.CausalCache` has

    - ``positions`` ``(n)`` int32, ascending, the last one ``length - 1``;
    - ``delta`` ``(n)`` int32: the rotation that the keys still lack, usually 0;
    - ``layers`` ``(n_layers, 6)`` int32: layer, n_head_kv, d_k, d_v, K type and V type (``ggml_type`` numbers);
    - ``k.<layer>`` ``(n, bytes of a row)`` and ``v.<layer>`` uint8: the raw elements of each position.

    The other caches name their arrays in their own docstrings. A :class:`~pyggml.kvcache.MixedCache` puts ``<i>/``
    before the names of its part ``i``. Shapes are in numpy order.
    """

    length: int
    arrays: Mapping[str, Array] = field(repr=False)

    @property
    def n_bytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def part(self, index: int) -> "CacheState":
        """What :meth:`join` joined at ``index``."""
        prefix = f"{index}/"
        found = {name[len(prefix) :]: array for name, array in self.arrays.items() if name.startswith(prefix)}
        return CacheState(self.length, found)

    @classmethod
    def join(cls, length: int, parts: Iterable["CacheState"]) -> "CacheState":
        """One state of several."""
        return cls(
            length,
            {f"{i}/{name}": array for i, part in enumerate(parts) for name, array in part.arrays.items()},
        )

    def need(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """The array called ``name``, or -1 in ``shape`` for any size.

        Raises:
            ParameterError: it is absent, or of another shape or type.
        """
        array = self.arrays.get(name)
        if array is None:
            raise ParameterError(f"the saved state has no {name!r}: it is of another kind of cache")
        fits = len(array.shape) == len(shape) and all(w in (-1, n) for n, w in zip(array.shape, shape, strict=True))
        if not fits or array.dtype != np.dtype(dtype):
            raise ParameterError(
                f"the saved state's {name!r} is {array.dtype} {array.shape}, this cache needs {np.dtype(dtype)} "
                f"{shape}: it is of another model or of other cache types"
            )
        return array
