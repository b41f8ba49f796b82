"""What models and the engine know of a cache."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pyggml.batch import Batch
from pyggml.errors import ParameterError
from pyggml.tensor import Executor, Graph, Tensor

from .state import CacheState

__all__ = ["UNLIMITED", "Cache", "CacheView", "LayerShape", "Rotate", "check_range", "pad_to"]

UNLIMITED = 1 << 30
"""``n_free`` of a cache that does not store tokens."""


Rotate = Callable[[int, Tensor, Tensor], Tensor]
"""``rotate(layer, k, delta)``: keys ``(d_k, n_head_kv, n)`` float32 turned by ``delta`` ``(n)`` int32 positions."""


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
            ParameterError: :attr:`pending_shifts`, or a batch that this kind of cache cannot compute.
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

    @property
    def n_cells(self) -> int:
        """How many tokens there is room for."""
        ...

    @property
    def n_free(self) -> int:
        """How many tokens of sequences that go on where they end could be taken now."""
        ...

    def sequence_length(self, seq_id: int) -> int:
        """One past the last position of the sequence; 0 when it holds nothing."""
        ...

    def remove(self, seq_id: int, begin: int, end: int | None = None) -> None:
        """Forget positions ``begin`` to ``end`` (excluded; None: to the last) of a sequence; nothing moves."""
        ...

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Let ``target`` share the first ``length`` positions of ``source``; what it held before is forgotten."""
        ...

    def can_resume(self, seq_id: int, position: int) -> bool:
        """Whether ``position`` can be computed next: everything it looks at is still there."""
        ...

    def resume_point(self, seq_id: int, position: int) -> int:
        """The highest position, at most ``position``, for which :meth:`can_resume` is true; 0 always is."""
        ...

    @property
    def can_shift(self) -> bool:
        """Whether :meth:`discard` works (the model must be able to rotate its keys, too)."""
        ...

    def check_discard(self, seq_id: int, begin: int, end: int) -> None:
        """Raise what :meth:`discard` would raise, and change nothing."""
        ...

    def discard(self, seq_id: int, begin: int, end: int) -> None:
        """Forget positions ``begin`` to ``end`` (excluded), and move all later ones of the sequence down to ``begin``.

        Cells to be moved that other sequences share are copied first. Positions change at once; keys must be rotated
        by :meth:`apply_shifts` before the next computation. Ask :meth:`can_resume` before going on: with a window, what
        comes into sight again may be gone.

        Raises:
            ParameterError: the cache cannot shift, or the range is none.
            ContextFullError: no room for the copies. Nothing was changed in either case.
        """
        ...

    @property
    def pending_shifts(self) -> bool:
        """Whether keys wait for :meth:`apply_shifts`."""
        ...

    def apply_shifts(self, executor: Executor, rotate: Rotate) -> None:
        """Rotate the keys of all cells that moved.

        Args:
            executor: computes it; its other graphs may lose their memory (its generation changes then).
            rotate: the model's ``shift``.

        Raises:
            ComputeError: a device failed; keys that moved are then not to be used.
        """
        ...

    def save_sequence(self, seq_id: int, length: int) -> CacheState:
        """The first ``length`` positions of a sequence, or as many of the last of them as going on there needs.

        Raises:
            ParameterError: the sequence cannot be resumed at ``length``.
        """
        ...

    def check_load(self, seq_id: int, state: CacheState) -> None:
        """Raise what :meth:`load_sequence` would raise, and change nothing."""
        ...

    def load_sequence(self, seq_id: int, state: CacheState) -> None:
        """Make the sequence what was saved; what it held before is forgotten.

        Raises:
            ParameterError: the state is of a cache with other layers, types or shapes.
            ContextFullError: there is no room. Nothing was changed in either case.
        """
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


def check_range(begin: int, end: int) -> None:
    """
    Raises:
        ParameterError: ``begin`` to ``end`` is no range of positions.
    """
    if not 0 <= begin <= end:
        raise ParameterError(f"positions must be 0 <= begin <= end, got {begin} and {end}")
