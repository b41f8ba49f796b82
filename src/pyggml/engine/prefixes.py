"""Prompts that were read before a restart: sequences saved to disk when it pays, and brought back when it pays."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from pyggml.closing import Closing
from pyggml.errors import ContextFullError, ParameterError
from pyggml.gguf import GGUFFile
from pyggml.kvcache import Cache, CacheState

from .snapshots import SnapshotStore

if TYPE_CHECKING:
    from .slots import Slot

__all__ = ["SavedPrefixes", "file_key"]

log = logging.getLogger("pyggml.engine")

GROWTH = 1.5  # a sequence is written again when it has grown so much: what is written stays below 3 times its end
SAMPLE = 1024  # bytes of each tensor that tell one model's file from another's


class SavedPrefixes(Closing):
    """Between the sequences of a cache and a :class:`SnapshotStore`."""

    def __init__(self, store: SnapshotStore, cache: Cache, *, min_tokens: int, windowed: bool) -> None:
        """
        Args:
            store: where the files are.
            cache: whose sequences they are.
            min_tokens: fewer tokens are neither saved nor brought back: reading them again is as quick.
            windowed: parts of the cache forget, so a saved sequence can only be continued at its end.
        """
        self.store = store
        self.cache = cache
        self.min_tokens = min_tokens
        self.windowed = windowed
        self.restored_tokens = 0
        self._saved: dict[int, tuple[int, ...]] = {}  # by sequence: the tokens that are on disk
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="pyggml-snapshot")
        self._writing: Future[object] | None = None

    def keep(self, slot: Slot, *, wait: bool = False) -> None:
        """Save what a sequence holds, unless most of it is on disk already, or the last one is still being written.

        Args:
            slot: a sequence; those computed with adapters are not saved.
            wait: wait for the one that is being written.
        """
        n = len(slot.tokens)
        if slot.key or n < self.min_tokens or n < GROWTH * self._n_saved(slot):
            return
        if self._writing is not None and not self._writing.done():
            if not wait:
                return
            self._writing.result()
        try:
            state = self.cache.save_sequence(slot.seq_id, n)
        except ParameterError as error:  # a window has moved on
            log.debug("sequence %d is not saved: %s", slot.seq_id, error)
            return
        tokens = tuple(slot.tokens)
        self._saved[slot.seq_id] = tokens
        self._writing = self._writer.submit(self.store.save, tokens, state.arrays, {"length": n})

    def _n_saved(self, slot: Slot) -> int:
        saved = self._saved.get(slot.seq_id, ())
        return len(saved) if tuple(slot.tokens[: len(saved)]) == saved else 0

    def restore(self, slot: Slot, ids: Sequence[int], length: int) -> int:
        """Bring back more of ``ids`` than the ``length`` tokens that the sequence holds, if that saves work.

        Returns:
            How many tokens of ``ids`` it holds then.
        """
        if slot.key or len(ids) - 1 - length < self.min_tokens:
            return length
        wanted = list(ids[: len(ids) - 1])  # the last one is computed, for its logits
        found = self.store.find(wanted, whole=self.windowed)
        if found is None or found.n_common - length < self.min_tokens:
            return length
        arrays = self.store.load(found)
        if arrays is None:
            return length
        try:
            self.cache.load_sequence(slot.seq_id, CacheState(found.n_tokens, arrays))
        except ContextFullError:
            return length
        except ParameterError as error:
            log.warning("%s cannot be used and is removed: %s", found.path, error)
            self.store.remove(found)
            return length
        kept = self.cache.resume_point(slot.seq_id, found.n_common)
        self.cache.remove(slot.seq_id, kept)
        slot.tokens = wanted[:kept]
        self._saved[slot.seq_id] = tuple(slot.tokens)
        self.restored_tokens += kept
        return kept

    def close(self) -> None:
        """Wait for what is being written."""
        self._writer.shutdown(wait=True)


def file_key(file: GGUFFile) -> str:
    """A digest that tells a model's file from others, without reading it all.

    Of every tensor: name, type, shape and the first KiB; of the metadata, all that is no vocabulary.
    """
    digest = hashlib.sha256()
    for key, value in file.metadata.items():
        if not key.startswith("tokenizer."):
            digest.update(f"{key}={value!r}\n".encode())
    for name, info in file.tensors.items():
        digest.update(f"{name} {info.type} {info.shape}\n".encode())
        digest.update(file.data(name)[:SAMPLE])
    return digest.hexdigest()
