"""States of sequences: s' = s / 2 + sum of the tokens, computed in a graph, and by hand."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from pyggml.batch import Batch
from pyggml.errors import ContextFullError, ParameterError
from pyggml.kvcache import CacheState, RecurrentCache, StateShape
from pyggml.tensor import Backend, DType, Executor, Graph, find_device, ops

SIZES = (3, 2)
LAYERS = [StateShape(1, SIZES), StateShape(4, SIZES)]


class StateLab:
    """Two layers with two states each; layer 4 adds twice what layer 1 adds."""

    def __init__(self, **options: int) -> None:
        device = find_device("CPU")
        self.cache = RecurrentCache(LAYERS, [device, device], **({"n_sequences": 3} | options))
        self.backend = Backend(device, n_threads=1)
        self.executor = Executor([self.backend])

    def put(self, *parts: tuple[int, int, Sequence[int]]) -> npt.NDArray[np.float32]:
        """A batch of (sequence, first position, tokens); the new first element of layer 1's first state, by part."""
        self.cache.start(batch(*parts))
        sums = np.array([sum(tokens) for _, _, tokens in parts], np.float32)
        with Graph() as graph:
            view = self.cache.view(graph, len(parts), self.cache.key())
            added = graph.input(DType.F32, 1, len(parts))
            results = []
            for layer, factor in ((1, 1.0), (4, 2.0)):
                new = [
                    ops.add(ops.scale(old, factor=0.5), ops.scale(added, factor=factor)) for old in view.states(layer)
                ]
                view.store(layer, new)
                results += [graph.output(state) for state in new]
            self.executor.allocate(graph)
            added.set(sums)
            view.set_inputs(batch(*parts))
            self.executor.compute(graph)
            out = [r.numpy().reshape(len(parts), -1) for r in results]
        for got, size, factor in zip(out, SIZES * 2, (1, 1, 2, 2), strict=True):
            assert got.shape == (len(parts), size) and (got == out[0][:, :1] * factor).all()
        return out[0][:, 0]

    def close(self) -> None:
        self.executor.close()
        self.backend.close()
        self.cache.close()


def batch(*parts: tuple[int, int, Sequence[int]]) -> Batch:
    tokens = np.concatenate([np.array(ids) for _, _, ids in parts])
    positions = np.concatenate([np.arange(start, start + len(ids)) for _, start, ids in parts])
    seqs = np.concatenate([np.full(len(ids), seq_id) for seq_id, _, ids in parts])
    return Batch(*(x.astype(np.int32) for x in (tokens, positions, seqs)), np.zeros(0, np.int32))


@pytest.fixture
def lab() -> Iterator[StateLab]:
    lab = StateLab(n_checkpoints=4, checkpoint_first=2, checkpoint_every=3)
    yield lab
    lab.close()


def test_sequences_have_states_of_their_own(lab: StateLab) -> None:
    assert lab.put((0, 0, [1, 2]), (2, 0, [8, 8])).tolist() == [3, 16]
    assert lab.put((2, 2, [1])).tolist() == [9]
    assert lab.put((2, 3, [0]), (0, 2, [4])).tolist() == [4.5, 5.5]
    lab.cache.remove(0, 0)
    assert lab.put((0, 0, [7])).tolist() == [7]
    assert [lab.cache.sequence_length(i) for i in range(3)] == [1, 0, 4]


def test_a_fork_does_not_change_what_it_came_from(lab: StateLab) -> None:
    lab.put((0, 0, [4]))
    lab.cache.copy_prefix(0, 1, 1)
    assert lab.put((1, 1, [1])).tolist() == [3]
    assert lab.put((0, 1, [10]), (1, 2, [0])).tolist() == [12, 1.5]
    lab.cache.copy_prefix(1, 0, 3)
    assert lab.put((0, 3, [0]), (1, 3, [1])).tolist() == [0.75, 1.75]


def test_checkpoints(lab: StateLab) -> None:
    """States after 2, 5 and 8 tokens are kept: the first from 2 on, the next ones 3 further."""
    values = [float(lab.put((0, i, [i + 1]))[0]) for i in range(9)]
    cache = lab.cache
    assert [p for p in range(11) if cache.can_resume(0, p)] == [0, 2, 5, 8, 9]
    assert [cache.resume_point(0, p) for p in (1, 2, 4, 7, 8, 20)] == [0, 2, 2, 5, 8, 9]
    cache.copy_prefix(0, 1, 7)
    assert cache.sequence_length(1) == 5
    assert lab.put((1, 5, [0])).tolist() == [values[4] / 2]
    cache.remove(0, 6)
    assert cache.sequence_length(0) == 5
    assert [float(lab.put((0, i, [i + 1]))[0]) for i in range(5, 9)] == values[5:]
    cache.remove(0, 1)
    assert cache.sequence_length(0) == 0 and lab.put((0, 0, [1])).tolist() == [1]


def test_renumbering(lab: StateLab) -> None:
    for i in range(9):
        last = float(lab.put((0, i, [i + 1]))[0])
    lab.cache.discard(0, 2, 4)
    assert [p for p in range(10) if lab.cache.can_resume(0, p)] == [0, 2, 3, 6, 7]
    assert lab.put((0, 7, [0])).tolist() == [last / 2]
    lab.cache.discard(0, 5, 8)  # ends with the sequence: the same as removing
    assert lab.cache.sequence_length(0) == 3 and not lab.cache.pending_shifts


def test_rows_run_out() -> None:
    lab = StateLab(n_sequences=2, n_checkpoints=1, checkpoint_first=1, checkpoint_every=1)
    for i in range(4):
        lab.put((0, i, [1]), (1, i, [2]))  # checkpoints are given up for one another
    assert lab.put((0, 4, [0]), (1, 4, [0])).tolist() == [0.9375, 1.875]
    before = [lab.cache.sequence_length(i) for i in range(3)]
    with pytest.raises(ContextFullError, match="all 3 states"):
        lab.put((0, 5, [1]), (2, 0, [1]), (3, 0, [1]))
    assert [lab.cache.sequence_length(i) for i in range(3)] == before
    lab.close()


@pytest.mark.parametrize("n_checkpoints", [0, 1])
def test_one_sequence_in_little_room(n_checkpoints: int) -> None:
    lab = StateLab(n_sequences=1, n_checkpoints=n_checkpoints, checkpoint_first=1, checkpoint_every=1)
    assert [float(lab.put((0, i, [1]))[0]) for i in range(4)] == [1, 1.5, 1.75, 1.875]
    assert [p for p in range(5) if lab.cache.can_resume(0, p)] == ([0, 3, 4] if n_checkpoints else [0, 4])
    lab.close()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([(0, 1, [1])], "has a state after 0 tokens, not before 1"),
        ([(0, 0, [1, 2]), (1, 0, [1])], "as many tokens each"),
        ([(0, 0, [1]), (1, 0, [1]), (0, 1, [1])], "as many tokens each"),
        ([(0, 0, [1]), (0, 2, [1])], "as many tokens each"),
    ],
)
def test_batches_that_are_no_grid(lab: StateLab, parts: list[tuple[int, int, list[int]]], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        lab.cache.start(batch(*parts))
    assert lab.cache.sequence_length(0) == 0


def test_a_cancelled_batch_leaves_no_trace(lab: StateLab) -> None:
    lab.put((0, 0, [1, 2]))
    lab.cache.start(batch((0, 2, [5])))
    lab.cache.cancel()
    assert lab.cache.sequence_length(0) == 2 and lab.put((0, 2, [0])).tolist() == [1.5]


def test_save_and_load(lab: StateLab) -> None:
    for i in range(4):
        lab.put((0, i, [i + 1]))
    state = lab.cache.save_sequence(0, 2)
    assert state.length == 2 and state.arrays["s.4.1"].tolist() == [5, 5]
    lab.cache.load_sequence(2, state)
    assert lab.put((2, 2, [0])).tolist() == [1.25]
    with pytest.raises(ParameterError, match="no state after 3"):
        lab.cache.save_sequence(0, 3)
    arrays = dict(state.arrays)
    for name, wrong in (("layers", arrays["layers"][:1]), ("s.1.0", np.zeros(2, np.float32))):
        with pytest.raises(ParameterError, match="saved state"):
            lab.cache.load_sequence(1, CacheState(2, arrays | {name: wrong}))
    assert lab.cache.sequence_length(1) == 0
