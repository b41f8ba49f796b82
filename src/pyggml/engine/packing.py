"""Which texts share a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Part", "pack"]


@dataclass(frozen=True)
class Part:
    """Tokens ``begin`` to ``end`` (excluded) of a text."""

    text: int
    begin: int
    end: int


def pack(lengths: Sequence[int], *, capacity: int, n_texts: int, split: bool) -> list[list[Part]]:
    """Put texts of these lengths into few batches: the longest first, each into the first batch with room for it.

    Args:
        lengths: tokens of each text, 1 or more.
        capacity: tokens of a batch.
        n_texts: most texts of a batch.
        split: a text longer than a batch is cut into parts, which come one after the other in batches of their own;
            False: it gets a larger batch, for it must be computed at once.

    Returns:
        The batches in their order.
    """
    batches: list[list[Part]] = []
    room: list[int] = []
    first_open = 0  # batches before it are full
    for text in sorted(range(len(lengths)), key=lambda text: -lengths[text]):
        n = lengths[text]
        if n > capacity and split:
            batches += [[Part(text, at, min(n, at + capacity))] for at in range(0, n, capacity)]
            room += [0] * (len(batches) - len(room))
            continue
        at = next((i for i in range(first_open, len(room)) if room[i] >= n and len(batches[i]) < n_texts), len(room))
        if at == len(room):
            batches.append([])
            room.append(max(capacity, n))
        batches[at].append(Part(text, 0, n))
        room[at] -= n
        while first_open < len(room) and (room[first_open] == 0 or len(batches[first_open]) == n_texts):
            first_open += 1
    return batches
