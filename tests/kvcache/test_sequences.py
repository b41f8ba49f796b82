"""Any history of operations on a cache leads to the same logits as computing each sequence from scratch."""

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, run_state_machine_as_test

from pyggml.engine import Engine
from pyggml.errors import ContextFullError
from pyggml.tensor import DType

from .histories import Growing, histories
from .lab import CacheKind, Lab, block

F32, F16, Q8_0 = DType.F32, DType.F16, DType.Q8_0
# Logits are up to about 4. The order of cells changes the order of sums (1e-5 in float32); 16-bit and 8-bit caches
# round keys that differ by that much to different neighbours, and flash attention sums in 16 bits for them.
KINDS = [
    CacheKind(True, F32, F32, 2e-5),
    CacheKind(False, F32, F32, 2e-5),
    CacheKind(True, F16, F16, 1e-2),
    CacheKind(False, F16, F16, 1e-2),
    CacheKind(True, Q8_0, Q8_0, 0.1),
    CacheKind(False, Q8_0, F16, 0.1),
]


class Sequences(Growing):
    """Through a whole model."""

    tokens = st.integers(3, 44)

    def __init__(self, engine: Engine, kind: CacheKind) -> None:
        super().__init__()
        self.engine, self.kind = engine, kind

    @initialize(n_free=st.integers(24, 48))
    def make(self, n_free: int) -> None:
        self.lab = Lab(self.engine, self.kind, n_free=n_free)

    def put(self, parts: dict[int, list[int]]) -> None:
        before = self.lab.state()
        try:
            rows = self.lab.put([(seq_id, len(self.said[seq_id]), ids) for seq_id, ids in parts.items()])
        except ContextFullError:
            n = sum(len(ids) for ids in parts.values())
            assert any(t.n_cells - t.n_used < n for t in self.lab.tables)
            assert self.lab.state() == before
            return
        for row, (seq_id, ids) in zip(rows, parts.items(), strict=True):
            self.said[seq_id] += ids
            assert self.lab.cache.can_resume(seq_id, len(self.said[seq_id]))
            self.lab.check(row, self.said[seq_id])

    def may_forget(self, seq_id: int) -> bool:
        return any(layer.window for layer in self.engine.model.shape.layers)

    def teardown(self) -> None:
        if hasattr(self, "lab"):
            for table in self.lab.tables:
                used = np.flatnonzero(table.seqs)
                assert table.n_used == used.size and table.end == used[-1] + 1
                assert (table.pos[table.seqs == 0] == -1).all()
            self.lab.close()


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_any_history(request: pytest.FixtureRequest, architecture: str, kind: CacheKind) -> None:
    engine = request.getfixturevalue(architecture)
    run_state_machine_as_test(lambda: Sequences(engine, kind), settings=histories(5, 20))


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_scattered_cells_are_used_again(request: pytest.FixtureRequest, architecture: str, kind: CacheKind) -> None:
    ids = list(range(3, 33))
    with Lab(request.getfixturevalue(architecture), kind, n_free=48) as lab:
        for i in range(16):  # three sequences take turns, so that each has every third cell
            for seq_id in range(3):
                lab.put([(seq_id, i, [ids[i]])])
        with pytest.raises(ContextFullError):
            lab.put([(1, 16, ids[16:30])])
        lab.cache.remove(0, 0)
        lab.cache.remove(2, 12)
        rows = lab.put([(1, 16, ids[16:26]), (2, 12, ids[20:24])])
        lab.check(rows[0], ids[:26])
        lab.check(rows[1], ids[:12] + ids[20:24])
        if architecture == "llama":
            where = np.flatnonzero(lab.tables[0].of(1))
            assert (np.diff(where) != 1).sum() > 10


def test_a_window_cache_gives_up_only_what_nobody_sees(gemma3: Engine) -> None:
    kind = KINDS[0]
    ids = [3 + i % 40 for i in range(60)]
    with Lab(gemma3, kind, n_free=64) as lab:
        full, windowed = lab.tables
        windowed.take(block(48))  # leaves it 16 cells, twice its window
        for i, token in enumerate(ids[:40]):
            lab.check(lab.put([(0, i, [token])])[0], ids[: i + 1])
        held = sorted(windowed.positions(0).tolist())
        assert held == list(range(held[0], 40)) and 8 <= len(held) <= 16
        assert sorted(full.positions(0).tolist()) == list(range(40))
        # To go on at a position, the 7 before it must be there.
        assert lab.cache.can_resume(0, 40) and lab.cache.can_resume(0, held[0] + 7)
        assert not lab.cache.can_resume(0, held[0] + 6) and not lab.cache.can_resume(0, 20)
        assert lab.cache.can_resume(0, 0)
        at = held[0] + 7
        lab.cache.remove(0, at)
        lab.check(lab.put([(0, at, [9, 10])])[0], ids[:at] + [9, 10])


def test_a_start_that_fails_changes_nothing(gemma3: Engine) -> None:
    """The second cache gives up old cells before it finds that even then there is no room."""
    with Lab(gemma3, KINDS[0], n_free=64) as lab:
        ids = list(range(3, 33))
        lab.put([(0, 0, ids)])
        lab.tables[1].take(block(30))
        before = lab.state()
        with pytest.raises(ContextFullError):
            lab.put([(0, 30, ids)])
        assert lab.state() == before
        assert lab.cache.can_resume(0, 10)
        lab.cache.remove(0, 10)
        lab.check(lab.put([(0, 10, [9])])[0], ids[:10] + [9])
