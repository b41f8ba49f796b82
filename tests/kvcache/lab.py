"""Several sequences through a tiny model with a cache of one's choice, and the same computed from scratch."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from pyggml.batch import Batch
from pyggml.engine import Decoder, Engine
from pyggml.kvcache import Cache, CausalCache, CellTable, MixedCache
from pyggml.tensor import DType, Executor

__all__ = ["CacheKind", "Lab", "block"]

BLOCKER = 63  # the sequence that takes cells away, since no cache has fewer than 256


def block(n: int) -> Batch:
    """Takes ``n`` cells that a window does not give up: all of them at one position."""
    return Batch(*(np.full(n, value, np.int32) for value in (0, 1000, BLOCKER)), np.zeros(0, np.int32))


Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class CacheKind:
    """How the cache under test is made, and how far its logits may be from a fresh computation."""

    flash: bool
    type_k: DType
    type_v: DType
    tolerance: float

    def __str__(self) -> str:
        return f"{'flash' if self.flash else 'plain'}-{self.type_k.name}-{self.type_v.name}".lower()


class Lab:
    """Owns two caches with a decoder each, on the model of an open engine."""

    def __init__(self, engine: Engine, kind: CacheKind, *, n_free: int = 256) -> None:
        self._stack = ExitStack()
        self.engine, self.kind = engine, kind
        self.cache, self._decoder = self._make()
        self.executor = self._decoder.executor
        self._fresh_cache, self._fresh_decoder = self._make()
        for table in self.tables if n_free < 256 else []:
            table.take(block(table.n_cells - n_free))

    def _make(self) -> tuple[Cache, Decoder]:
        shape, kind, device = self.engine.model.shape, self.kind, self.engine.backends[0].device
        caches: list[Cache] = []
        windows = sorted({layer.window for layer in shape.layers})
        for window in windows:
            layers = [layer.shape for layer in shape.layers if layer.window == window]
            cache = CausalCache(
                layers,
                [device] * len(layers),
                n_cells=256,
                type_k=kind.type_k,
                type_v=kind.type_v,
                flash_attn=kind.flash,
                window=window,
            )
            self._stack.callback(cache.close)
            caches.append(cache)
        mixed = MixedCache(caches, {layer.shape.layer: windows.index(layer.window) for layer in shape.layers})
        whole = caches[0] if len(caches) == 1 else mixed
        decoder = Decoder(self.engine.model, whole, self._stack.enter_context(Executor(self.engine.backends)))
        self._stack.callback(decoder.close)
        return whole, decoder

    @property
    def tables(self) -> list[CellTable]:
        """The cell tables of the cache under test."""
        caches = self.cache.caches if isinstance(self.cache, MixedCache) else [self.cache]
        return [cache.cells for cache in caches if isinstance(cache, CausalCache)]

    def state(self) -> list[tuple[list[int], list[int], int, int]]:
        """All that the tables hold, for comparison."""
        return [(t.pos.tolist(), t.seqs.tolist(), t.n_used, t.end) for t in self.tables]

    def put(self, parts: Sequence[tuple[int, int, Sequence[int]]]) -> Floats:
        """Compute a batch of (sequence, first position, tokens); logits of the last token of each part."""
        tokens, positions, seqs, outputs = [], [], [], []
        for seq_id, start, ids in parts:
            tokens += list(ids)
            positions += list(range(start, start + len(ids)))
            seqs += [seq_id] * len(ids)
            outputs.append(len(tokens) - 1)
        batch = Batch(*(np.array(numbers, np.int32) for numbers in (tokens, positions, seqs, outputs)))
        return self._decoder.run(batch).copy()

    def fresh(self, ids: Sequence[int]) -> Floats:
        """Logits ``(n_vocab)`` of the last token, from an empty cache of the same kind."""
        self._fresh_cache.remove(0, 0)
        return self._fresh_decoder.run(Batch.of_sequence(list(ids), start=0))[0].copy()

    def check(self, got: Floats, ids: Sequence[int]) -> None:
        """``got`` must be what the fresh computation gives."""
        # gemma3's GELU is a table of 16-bit floats: a change in the last bit may become a step of 1e-3.
        step = 5e-3 if self.engine.metadata.architecture == "gemma3" else 0.0
        np.testing.assert_allclose(got, self.fresh(ids), rtol=0, atol=self.kind.tolerance + step)

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
