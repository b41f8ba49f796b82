"""Windows and chunks: what is given up when room is needed, and for whom."""

import numpy as np
import pytest

from pyggml.batch import Batch
from pyggml.errors import ContextFullError, ParameterError
from pyggml.kvcache import CausalCache, LayerShape, MixedCache
from pyggml.tensor import find_device


def make(*, window: int = 0, chunk: int = 0) -> CausalCache:
    return CausalCache([LayerShape(0, 1, 32, 32)], [find_device("CPU")], n_cells=256, window=window, chunk=chunk)


def start(cache: CausalCache | MixedCache, *parts: tuple[int, int, int]) -> None:
    """Take cells for (sequence, first position, number of tokens)."""
    seqs = np.concatenate([np.full(n, seq_id, np.int32) for seq_id, _, n in parts])
    positions = np.concatenate([np.arange(first, first + n, dtype=np.int32) for _, first, n in parts])
    cache.start(Batch(np.zeros_like(seqs), positions, seqs, np.zeros(0, np.int32)))


def held(cache: CausalCache, seq_id: int) -> list[int]:
    return sorted(cache.cells.positions(seq_id).tolist())


def test_idle_sequences_give_up_what_no_later_token_sees() -> None:
    cache = make(window=16)
    start(cache, (1, 0, 100))
    start(cache, (2, 0, 150))
    assert cache.n_free == 256 - 15 - 15
    start(cache, (0, 0, 40))
    # Position 100 sees 85 to 100; that 99 can be computed again costs one more.
    assert held(cache, 1) == list(range(84, 100)) and held(cache, 2) == list(range(134, 150))
    assert cache.can_resume(1, 99) and cache.can_resume(1, 100) and not cache.can_resume(1, 98)
    assert cache.resume_point(1, 98) == 0 and cache.resume_point(2, 1000) == 150
    # The last bit is given up only when needed.
    start(cache, (0, 40, 256 - 15 - 31))
    assert held(cache, 1) == list(range(84, 100))[1:] and cache.can_resume(1, 100) and not cache.can_resume(1, 99)
    assert held(cache, 0) == list(range(25, 250)) and cache.cells.n_free == 1


def test_the_batch_itself_gives_up() -> None:
    cache = make(window=16)
    for position in range(0, 1000, 50):
        start(cache, (0, position, 50), (3, position, 50))
        assert cache.can_resume(0, position + 50) and cache.can_resume(3, position + 50)
        assert cache.sequence_length(0) == cache.sequence_length(3) == position + 50
    assert cache.n_cells - cache.cells.n_free <= 256


def test_shared_cells_stay_for_those_who_need_them() -> None:
    cache = make(window=16)
    start(cache, (0, 0, 100))
    cache.copy_prefix(0, 1, 50)
    start(cache, (0, 100, 100))
    start(cache, (2, 0, 100))
    assert cache.can_resume(1, 50) and held(cache, 1) == list(range(34, 50))


@pytest.mark.parametrize("last", [0, 5, 15, 16, 17, 31, 32, 40])
def test_chunks(last: int) -> None:
    """A token sees back to the last multiple of 16."""
    cache = make(chunk=16)
    start(cache, (1, 0, last + 1))
    start(cache, (0, 0, 256 - last - 1))
    first = (last + 1) // 16 * 16
    again = last // 16 * 16
    assert cache.can_resume(1, last + 1) and cache.can_resume(1, last)
    start(cache, (2, 0, 100))
    assert held(cache, 1) == list(range(min(first, again), last + 1))
    assert cache.can_resume(1, last + 1) and cache.can_resume(1, last)
    points = [p for p in range(last + 2) if cache.can_resume(1, p)]
    assert [cache.resume_point(1, p) for p in range(last + 2)] == [
        max(q for q in points if q <= p) for p in range(last + 2)
    ]


def test_an_idle_sequence_at_the_border_of_chunks_keeps_its_last_position() -> None:
    """Nothing before the next chunk is seen any more, but where the sequence stands must be known."""
    cache = make(chunk=16)
    start(cache, (1, 0, 32))
    start(cache, (0, 0, 224))
    assert cache.n_free == 256 - 1 - 1
    start(cache, (0, 224, 254))
    assert held(cache, 1) == [31] and cache.can_resume(1, 32) and cache.sequence_length(1) == 32
    cache.remove(0, 0)
    cache.load_sequence(2, cache.save_sequence(1, 32))
    assert cache.resume_point(2, 40) == 32 and cache.sequence_length(2) == 32


def test_no_room_at_all_changes_nothing() -> None:
    cache = make(window=200)
    start(cache, (0, 0, 150))
    start(cache, (1, 0, 100))
    before = cache.cells.save()
    with pytest.raises(ContextFullError, match="6 of 256 cells free; 7 are needed"):
        start(cache, (2, 0, 7))
    assert (cache.cells.pos == before.pos).all() and (cache.cells.seqs == before.seqs).all()
    start(cache, (2, 0, 6))
    cache.cancel()
    assert (cache.cells.seqs == before.seqs).all() and cache.n_free == 6


def test_a_cancelled_batch_brings_back_what_it_gave_up() -> None:
    cache = make(window=16)
    start(cache, (0, 0, 200))
    before = cache.cells.save()
    start(cache, (0, 200, 100))
    assert len(held(cache, 0)) < 200
    cache.cancel()
    assert (cache.cells.pos == before.pos).all() and cache.can_resume(0, 50)


def test_dropping_the_middle_keeps_positions() -> None:
    cache = make()
    start(cache, (0, 0, 10))
    cache.remove(0, 3, 5)
    assert held(cache, 0) == [0, 1, 2, 5, 6, 7, 8, 9] and not cache.pending_shifts
    assert not cache.can_resume(0, 10) and cache.can_resume(0, 3) and cache.resume_point(0, 9) == 3
    start(cache, (0, 3, 2))
    assert cache.can_resume(0, 10)


def test_a_window_may_miss_what_comes_into_sight_again() -> None:
    """Closing a gap lets the window reach back to tokens that were given up."""
    cache = make(window=16)
    start(cache, (0, 0, 100))
    start(cache, (1, 0, 200))
    assert held(cache, 0) == list(range(84, 100))
    cache.discard(0, 84, 90)
    assert held(cache, 0) == list(range(84, 94)) and cache.sequence_length(0) == 94
    assert not cache.can_resume(0, 94) and cache.resume_point(0, 94) == 0


def test_a_batch_waits_for_rotation() -> None:
    cache = make()
    start(cache, (0, 0, 10))
    cache.discard(0, 2, 4)
    assert cache.pending_shifts
    with pytest.raises(ParameterError, match="apply_shifts"):
        start(cache, (1, 0, 1))
    cache.remove(0, 2)  # what moved is gone, and cells taken anew need no rotation
    assert not cache.pending_shifts
    start(cache, (0, 2, 5))
    assert not cache.pending_shifts


@pytest.mark.parametrize(("begin", "end"), [(-1, 3), (4, 3)])
def test_ranges_that_are_none(begin: int, end: int) -> None:
    cache = make()
    with pytest.raises(ParameterError, match="0 <= begin <= end"):
        cache.discard(0, begin, end)


def test_closing_a_gap_needs_room_for_what_is_shared() -> None:
    cache = make()
    start(cache, (0, 0, 200))
    cache.copy_prefix(0, 1, 200)
    before = cache.cells.save()
    with pytest.raises(ContextFullError, match="197 cells that sequence 1 shares"):
        cache.discard(1, 2, 3)
    assert (cache.cells.seqs == before.seqs).all() and held(cache, 1) == list(range(200))
    cache.remove(0, 50)
    cache.discard(1, 2, 3)  # 47 are still shared
    assert held(cache, 1) == list(range(199)) and held(cache, 0) == list(range(50))
    assert cache.cells.n_used == 199 + 50 - 2


def test_all_parts_of_a_mixed_cache_or_none() -> None:
    full, window = make(), make(window=16)
    mixed = MixedCache([full, window], {0: 0, 1: 1})
    start(mixed, (0, 0, 120))
    start(window, (5, 0, 120))
    mixed.copy_prefix(0, 1, 120)
    window.window = 120  # nothing can be given up
    before = [cache.cells.save() for cache in (full, window)]
    for call in (lambda: mixed.discard(0, 10, 20), lambda: mixed.start(Batch.of_sequence([0] * 20, start=120))):
        with pytest.raises(ContextFullError):
            call()
        for cache, saved in zip((full, window), before, strict=True):
            assert (cache.cells.pos == saved.pos).all() and (cache.cells.seqs == saved.seqs).all()
            assert not cache.cells.delta.any()
    assert mixed.n_cells == 256 and mixed.n_free == min(full.n_free, window.n_free)
