"""Whatever was put, shared, cut, moved, saved and loaded: attention is what it is when computed from scratch."""

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from pyggml.errors import ContextFullError
from pyggml.kvcache import CacheState
from pyggml.tensor import DType

from .attention import ROPES, AttentionLab, Rope
from .histories import N_SEQUENCES, SEQUENCES, Growing, histories
from .lab import CacheKind

F32, F16, Q8_0 = DType.F32, DType.F16, DType.Q8_0
# Outputs are means of normal numbers, up to about 3. Scores go up to 20 and so does the effect of an error in a key.
KINDS = [
    CacheKind(True, F32, F32, 2e-4),
    CacheKind(False, F32, F32, 2e-4),
    CacheKind(True, F16, F16, 1.5e-2),
    CacheKind(False, F16, F16, 1.5e-2),
    CacheKind(True, Q8_0, Q8_0, 0.15),
    CacheKind(False, Q8_0, F16, 0.15),
]


class Histories(Growing):
    """Model, too: how often the keys of each sequence were rotated again."""

    def __init__(self, kind: CacheKind, ropes: list[Rope]) -> None:
        super().__init__()
        self.kind, self.ropes = kind, ropes
        self.rounds = dict.fromkeys(range(N_SEQUENCES), 0)
        self.saved: tuple[CacheState, list[int], int] | None = None

    @initialize(data=st.data(), n_free=st.tuples(*[st.integers(24, 48)] * 3))
    def make(self, data: st.DataObject, n_free: tuple[int, int, int]) -> None:
        self.lab = AttentionLab(self.kind, data.draw(st.sampled_from(self.ropes)), n_free=n_free)

    def put(self, parts: dict[int, list[int]]) -> None:
        if self.lab.cache.pending_shifts:
            self.apply_shifts()
        before = self.lab.state()
        try:
            got = self.lab.put([(seq_id, len(self.said[seq_id]), ids) for seq_id, ids in parts.items()])
        except ContextFullError:
            assert self.lab.state() == before
            assert self.lab.cache.n_free < sum(len(ids) for ids in parts.values())
            return
        for outputs, (seq_id, ids) in zip(got, parts.items(), strict=True):
            self.said[seq_id] += ids
            self.lab.check(outputs, self.said[seq_id], rounds=self.rounds[seq_id])
            assert self.lab.cache.sequence_length(seq_id) == len(self.said[seq_id])
            self.check_resume(seq_id)

    def check_resume(self, seq_id: int) -> None:
        """Going on is possible, and so is computing the last token again."""
        length = len(self.said[seq_id])
        cache = self.lab.cache
        assert cache.can_resume(seq_id, length) and cache.resume_point(seq_id, length) == length
        points = [p for p in range(length + 1) if cache.can_resume(seq_id, p)]
        at = length // 2
        assert cache.resume_point(seq_id, at) == max(p for p in points if p <= at)

    @precondition(lambda self: any(self.said.values()))
    @rule(seq_id=SEQUENCES, data=st.data(), at_once=st.booleans())
    def close_gap(self, seq_id: int, data: st.DataObject, at_once: bool) -> None:
        self.discard(seq_id, data)
        if at_once:
            self.apply_shifts()

    def discard(self, seq_id: int, data: st.DataObject) -> None:
        tokens = self.said[seq_id]
        begin = data.draw(st.integers(0, len(tokens) // 2))
        end = min(len(tokens), begin + data.draw(st.integers(0, 5)))
        before = self.lab.state()
        try:
            self.lab.cache.discard(seq_id, begin, end)
        except ContextFullError:
            assert self.lab.state() == before
            return
        del tokens[begin:end]
        self.rounds[seq_id] += 1
        self.forget_what_cannot_go_on(seq_id)

    @precondition(lambda self: any(self.said.values()))
    @rule(source=SEQUENCES, to=SEQUENCES, data=st.data())
    def share_and_close_gap(self, source: int, to: int, data: st.DataObject) -> None:
        """One of two that share cells moves: the other must not notice."""
        if source != to and self.lab.cache.can_resume(source, len(self.said[source])):
            self.lab.cache.copy_prefix(source, to, len(self.said[source]))
            self.said[to], self.rounds[to] = list(self.said[source]), self.rounds[source]
            self.discard(data.draw(st.sampled_from([source, to])), data)

    def apply_shifts(self) -> None:
        self.lab.apply_shifts()
        assert not self.lab.cache.pending_shifts

    @precondition(lambda self: any(self.said.values()))
    @rule(seq_id=SEQUENCES, data=st.data())
    def save(self, seq_id: int, data: st.DataObject) -> None:
        points = [p for p in range(1, len(self.said[seq_id]) + 1) if self.lab.cache.can_resume(seq_id, p)]
        if points:
            length = data.draw(st.sampled_from(points))
            state = self.lab.cache.save_sequence(seq_id, length)
            self.saved = state, self.said[seq_id][:length], self.rounds[seq_id]

    @precondition(lambda self: self.saved is not None)
    @rule(seq_id=SEQUENCES)
    def load(self, seq_id: int) -> None:
        assert self.saved is not None
        state, tokens, rounds = self.saved
        before = self.lab.state()
        try:
            self.lab.cache.load_sequence(seq_id, state)
        except ContextFullError:
            assert self.lab.state() == before
            return
        self.said[seq_id], self.rounds[seq_id] = list(tokens), rounds
        self.check_resume(seq_id)

    def may_forget(self, seq_id: int) -> bool:
        return self.lab.caches[0].can_resume(seq_id, len(self.said[seq_id]))

    def shared(self, source: int, to: int) -> None:
        self.rounds[to] = self.rounds[source]

    def forget_what_cannot_go_on(self, seq_id: int) -> None:
        super().forget_what_cannot_go_on(seq_id)
        if not self.said[seq_id]:
            self.rounds[seq_id] = 0

    def teardown(self) -> None:
        if not hasattr(self, "lab"):
            return
        for cache in self.lab.caches:
            table = cache.cells
            used = np.flatnonzero(table.seqs)
            assert table.n_used == used.size and table.end == used[-1] + 1
            free = table.seqs == 0
            assert (table.pos[free] == -1).all() and not table.delta[free].any()
        self.lab.close()


def run(kind: CacheKind, ropes: list[Rope], examples: int, steps: int) -> None:
    run_state_machine_as_test(lambda: Histories(kind, ropes), settings=histories(examples, steps))


@pytest.mark.parametrize("rope", ROPES, ids=str)
def test_any_history_in_float32(rope: Rope) -> None:
    """An error in an angle or a length must not hide in the tolerance."""
    run(KINDS[ROPES.index(rope) % 2], [rope], 8, 20)


@pytest.mark.parametrize("kind", KINDS[2:], ids=str)
def test_any_history(kind: CacheKind) -> None:
    run(kind, ROPES, 8, 20)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_many_long_histories(kind: CacheKind) -> None:
    run(kind, ROPES, 150, 40)
