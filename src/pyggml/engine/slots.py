"""Who has which sequence of the cache, and what each still holds from earlier requests.

A slot is one sequence. When a request ends, its tokens stay in the cache, so that the next request that begins alike
starts where they end (a chat's next turn, a shared system prompt). A prefix that somebody else still needs is shared:
both sequences refer to the same cells.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyggml.kvcache import Cache

if TYPE_CHECKING:
    from .prefixes import SavedPrefixes

__all__ = ["Slot", "Slots", "common_prefix"]


@dataclass(eq=False)
class Slot:
    """One sequence of the cache.

    Attributes:
        seq_id: its number in batches.
        tokens: what the cache holds of it, from position 0.
        key: what, beside the tokens, its keys and values were computed with (adapters); only equals share.
        owner: who is using it; None: idle.
        used: when it was taken last, as a count.
    """

    seq_id: int
    tokens: list[int] = field(default_factory=list)
    key: Hashable = ()
    owner: object | None = None
    used: int = 0


class Slots:
    """All sequences of one cache."""

    def __init__(self, cache: Cache, n_slots: int, *, saved: SavedPrefixes | None = None) -> None:
        """
        Args:
            cache: the cache.
            n_slots: how many sequences it has room for.
            saved: where sequences are kept beyond the life of the engine.
        """
        self.cache = cache
        self.slots = [Slot(i) for i in range(n_slots)]
        self.saved = saved
        self.forks = 0
        self._count = 0

    @property
    def n_idle(self) -> int:
        return sum(slot.owner is None for slot in self.slots)

    def acquire(self, ids: Sequence[int], owner: object, *, key: Hashable = ()) -> tuple[Slot, int] | None:
        """Take the slot that saves most work and does least damage.

        The longest prefix wins. It is used in place where nothing else would be lost; otherwise the slot that has been
        idle longest gets a copy of the prefix (its cells are shared, no data moves).

        Args:
            ids: the tokens to come; the last one is never taken from the cache, for its logits are wanted.
            owner: who takes it.
            key: see :class:`Slot`.

        Returns:
            The slot, which now holds a prefix of ``ids``, and the length of that prefix; None: no slot is idle.
        """
        idle = [slot for slot in self.slots if slot.owner is None]
        if not idle:
            return None
        source, length = self._longest(ids, key)
        oldest = min(idle, key=lambda slot: (bool(slot.tokens), slot.used))
        if source is None:
            slot = oldest
        elif source.owner is None and (length == len(source.tokens) or source is oldest):
            slot = source
        else:
            slot = oldest
        if slot is not source:
            self._drop(slot, 0)
            if source is not None:
                self.cache.copy_prefix(source.seq_id, slot.seq_id, length)
                slot.tokens = source.tokens[:length]
                self.forks += 1
        elif length < len(slot.tokens):
            self._drop(slot, length)
        slot.owner, slot.key = owner, key
        if self.saved is not None:
            length = self.saved.restore(slot, ids, length)
        self._count += 1
        slot.used = self._count
        return slot, length

    def _longest(self, ids: Sequence[int], key: Hashable) -> tuple[Slot | None, int]:
        """The slot with the longest prefix that can be continued; an idle one among equals."""
        found: list[tuple[int, bool, int, Slot]] = []
        for slot in self.slots:
            if slot.key == key and (common := common_prefix(ids, slot.tokens, len(ids) - 1)):
                length = self.cache.resume_point(slot.seq_id, common)
                found.append((length, slot.owner is None, slot.used, slot))
        length, _, _, source = max(found, key=lambda each: each[:3], default=(0, False, 0, None))
        return (source, length) if length else (None, 0)

    def release(self, slot: Slot) -> None:
        """The owner is done; what the slot holds stays until the room is needed."""
        slot.owner = None
        if self.saved is not None:
            self.saved.keep(slot)

    def _drop(self, slot: Slot, length: int) -> None:
        if self.saved is not None and len(slot.tokens) > length:
            self.saved.keep(slot, wait=True)
        self.forget(slot, length)

    def forget(self, slot: Slot, length: int = 0) -> None:
        """Keep only the first ``length`` tokens of a slot."""
        self.cache.remove(slot.seq_id, length)
        del slot.tokens[length:]

    def keep_all(self) -> None:
        """Save what all sequences hold, where there is a place for it."""
        for slot in self.slots:
            if self.saved is not None:
                self.saved.keep(slot, wait=True)

    def evict(self) -> bool:
        """Empty the idle slot that was used longest ago; False: there is none with anything in it."""
        full = [slot for slot in self.slots if slot.owner is None and slot.tokens]
        if not full:
            return False
        self._drop(min(full, key=lambda slot: slot.used), 0)
        return True


def common_prefix(a: Sequence[int], b: Sequence[int], most: int) -> int:
    """Length of the common prefix of two sequences, at most ``most``."""
    low, high = 0, max(0, min(len(a), len(b), most))
    if a[:high] == b[:high]:
        return high
    while low + 1 < high:  # a[:low] and b[:low] are equal, a[:high] and b[:high] are not
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
