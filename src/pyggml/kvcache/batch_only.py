"""No cache at all: every token of the batch looks at every other of its sequence (encoders such as BERT)."""

import numpy as np

from pyggml.batch import Batch
from pyggml.errors import ParameterError
from pyggml.inputs import HostInput
from pyggml.tensor import DType, Executor, Graph, Tensor, ops

from .base import UNLIMITED, Rotate
from .state import CacheState

__all__ = ["BatchOnlyCache", "BatchOnlyView"]


class BatchOnlyCache:
    """Keeps nothing between batches; attention is not causal."""

    n_bytes = 0
    n_cells = 0
    n_free = UNLIMITED
    can_shift = False
    pending_shifts = False

    def __init__(self, *, flash_attn: bool = False) -> None:
        self.flash_attn = flash_attn

    def start(self, batch: Batch) -> None:
        """Nothing to take."""

    def cancel(self) -> None:
        """Nothing to undo."""

    def key(self) -> tuple[int, ...]:
        return ()

    def reserve_key(self) -> tuple[int, ...]:
        return ()

    def view(self, graph: Graph, n_tokens: int, key: tuple[int, ...]) -> "BatchOnlyView":
        return BatchOnlyView(graph, n_tokens, flash_attn=self.flash_attn)

    def remove(self, seq_id: int, begin: int, end: int | None = None) -> None:
        """Nothing to forget."""

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Nothing to share."""

    def can_resume(self, seq_id: int, position: int) -> bool:
        return position == 0

    def resume_point(self, seq_id: int, position: int) -> int:
        return 0

    def sequence_length(self, seq_id: int) -> int:
        return 0

    def check_discard(self, seq_id: int, begin: int, end: int) -> None:
        raise ParameterError("this model keeps nothing between batches: there is nothing to move")

    def discard(self, seq_id: int, begin: int, end: int) -> None:
        self.check_discard(seq_id, begin, end)

    def apply_shifts(self, executor: Executor, rotate: Rotate) -> None:
        """Nothing to rotate."""

    def save_sequence(self, seq_id: int, length: int) -> CacheState:
        raise ParameterError("this model keeps nothing between batches: there is nothing to save")

    def check_load(self, seq_id: int, state: CacheState) -> None:
        raise ParameterError("this model keeps nothing between batches: there is nothing to load")

    def load_sequence(self, seq_id: int, state: CacheState) -> None:
        self.check_load(seq_id, state)

    def close(self) -> None:
        """Nothing to free."""


class BatchOnlyView:
    """The batch itself as the cache."""

    def __init__(self, graph: Graph, n_tokens: int, *, flash_attn: bool) -> None:
        self.flash_attn = flash_attn
        self.mask = graph.input(DType.F16 if flash_attn else DType.F32, n_tokens, n_tokens, name="batch_mask")
        self._host: HostInput | None = None

    def put(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`~pyggml.kvcache.CacheView`."""
        keys = ops.permute(k, 0, 2, 1, 3)
        if self.flash_attn:
            # ggml's kernels read K and V in 16 bits.
            values = ops.permute(v, 0, 2, 1, 3)
            return ops.cast(keys, dtype=DType.F16), ops.cast(values, dtype=DType.F16), self.mask
        return keys, ops.cont(ops.permute(v, 1, 2, 0, 3)), self.mask

    def set_inputs(self, batch: Batch) -> None:
        """Write the mask: 0 within a sequence, -inf between sequences."""
        if self._host is None:
            self._host = HostInput(self.mask, np.float16 if self.flash_attn else np.float32)
        same = batch.seq_ids[:, None] == batch.seq_ids[None, :]
        self._host.write(np.where(same, 0.0, -np.inf).astype(self._host.staging.dtype).reshape(-1))
