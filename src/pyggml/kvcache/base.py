"""What models and the engine know of a cache."""

from dataclasses import dataclass
from typing import Protocol

from pyggml.batch import Batch
from pyggml.tensor import Graph, Tensor

__all__ = ["Cache", "CacheView", "LayerShape", "pad_to"]


@dataclass(frozen=True)
class LayerShape:
    """What one layer stores per token."""

    layer: int
    n_head_kv: int
    d_k: int
    d_v: int


class CacheView(Protocol):
    """For models: the cache as one graph sees it. Valid as long as the graph."""

    flash_attn: bool

    def put(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Store the batch's keys and values and return all that its tokens may look at.

        Args:
            layer: index of the layer.
            k: ``(d_k, n_head_kv, n_tokens)``.
            v: ``(d_v, n_head_kv, n_tokens)``.

        Returns:
            keys ``(d_k, n_kv, n_head_kv)``, values ``(d_v, n_kv, n_head_kv)`` (transposed, ``(n_kv, d_v, n_head_kv)``,
            without flash attention), mask ``(n_kv, n_tokens)``.
        """
        ...

    def set_inputs(self, batch: Batch) -> None:
        """For the engine: write row indices and masks of the batch that :meth:`Cache.start` accepted last."""
        ...


class Cache(Protocol):
    """For the engine: the cache of all layers and sequences."""

    flash_attn: bool

    def start(self, batch: Batch) -> None:
        """Find cells for the batch and take them.

        Raises:
            ContextFullError: there is no room; nothing was changed.
        """
        ...

    def cancel(self) -> None:
        """Undo the last :meth:`start`, whose batch was not computed: everything is as it was before it."""
        ...

    def key(self) -> tuple[int, ...]:
        """What the shape of a graph for the current batch depends on."""
        ...

    def reserve_key(self) -> tuple[int, ...]:
        """The largest :meth:`key` there can be."""
        ...

    def view(self, graph: Graph, n_tokens: int, key: tuple[int, ...]) -> CacheView:
        """Make the inputs for a graph over ``n_tokens`` tokens."""
        ...

    def remove(self, seq_id: int, begin: int, end: int | None = None) -> None:
        """Forget positions ``begin`` to ``end`` (excluded; None: to the last) of a sequence."""
        ...

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Let ``target`` share the first ``length`` positions of ``source``; what it held before is forgotten."""
        ...

    def can_resume(self, seq_id: int, position: int) -> bool:
        """Whether ``position`` can be computed next: everything it looks at is still there."""
        ...

    @property
    def n_bytes(self) -> int:
        """Bytes of memory."""
        ...

    def close(self) -> None:
        """Free the memory."""
        ...


def pad_to(n: int, multiple: int) -> int:
    """``n`` rounded up."""
    return -(-n // multiple) * multiple
