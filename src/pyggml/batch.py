"""What one computation is about: tokens, where they stand, and which of them need an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pyggml.errors import ParameterError

__all__ = ["MAX_SEQUENCES", "Batch"]

MAX_SEQUENCES = 64  # a cell keeps its sequences as the bits of one 64-bit word

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Batch:
    """``n`` tokens, of one or several sequences.

    Attributes:
        tokens: ``(n)`` token ids.
        positions: ``(n)`` position of each token in its sequence, from 0.
        seq_ids: ``(n)`` the sequence of each token, below :data:`MAX_SEQUENCES`.
        outputs: ascending indices of the tokens whose logits (or embeddings) are wanted.
        adapters: the LoRA adapters that the batch uses, by index, with their scale for each token ``(n)``.
        segments: ``(n)`` for each token which text of a pair it belongs to, 0 or 1 (BERT); None: all to the first.
    """

    tokens: Ints
    positions: Ints
    seq_ids: Ints
    outputs: Ints
    adapters: Mapping[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    segments: Ints | None = None

    @classmethod
    def of_sequence(
        cls, tokens: Sequence[int] | Ints, *, start: int, seq_id: int = 0, outputs: Sequence[int] | Ints | None = None
    ) -> "Batch":
        """Consecutive tokens of one sequence, the first one at position ``start``.

        Args:
            tokens: at least one id.
            start: position of the first token.
            seq_id: the sequence.
            outputs: ascending indices into ``tokens``; None: the last one.

        Raises:
            ParameterError: no tokens, or a number out of its range.
        """
        ids = np.asarray(tokens, np.int32)
        n = ids.size
        if n == 0 or ids.ndim != 1:
            raise ParameterError("a batch needs at least one token")
        if start < 0 or not 0 <= seq_id < MAX_SEQUENCES:
            raise ParameterError(f"start must be 0 or more and seq_id below {MAX_SEQUENCES}, got {start} and {seq_id}")
        wanted = np.asarray([n - 1] if outputs is None else outputs, np.int32)
        if wanted.size and (wanted[0] < 0 or wanted[-1] >= n or (np.diff(wanted) <= 0).any()):
            raise ParameterError(f"outputs must be ascending indices below {n}, got {wanted.tolist()}")
        positions = np.arange(start, start + n, dtype=np.int32)
        return cls(ids, positions, np.full(n, seq_id, np.int32), wanted)

    @property
    def n_tokens(self) -> int:
        return int(self.tokens.size)

    @property
    def n_outputs(self) -> int:
        return int(self.outputs.size)
