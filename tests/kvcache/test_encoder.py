"""Cross attention over encoder outputs, against numpy."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from pyggml.batch import Batch
from pyggml.errors import ContextFullError, ParameterError
from pyggml.kvcache import EncoderCache, LayerShape
from pyggml.tensor import Backend, DType, Executor, Graph, Tensor, find_device, ops

D, N_HEAD = 32, 2
Floats = npt.NDArray[np.float32]
RNG = np.random.default_rng(3)
Q = RNG.standard_normal((8, N_HEAD, D)).astype(np.float32)  # by token id


def vectors(n: int) -> Floats:
    """An encoder output: keys are the vectors, values their negatives."""
    return RNG.standard_normal((n, N_HEAD, D)).astype(np.float32)


def expected(token: int, output: Floats) -> Floats:
    scores = np.einsum("hd,nhd->hn", Q[token], output) * D**-0.5
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return -np.einsum("hn,nhd->hd", weights, output).reshape(-1)


class EncoderLab:
    def __init__(self, flash: bool) -> None:
        device = find_device("CPU")
        self.cache = EncoderCache(
            [LayerShape(7, N_HEAD, D, D)],
            [device],
            n_vectors=256,
            type_k=DType.F32,
            type_v=DType.F32,
            flash_attn=flash,
        )
        self.backend = Backend(device, n_threads=1)
        self.executor = Executor([self.backend])

    def put(self, tokens: Sequence[tuple[int, int, int]], *outputs: Floats) -> Floats:
        """A batch of (sequence, position, token); ``outputs`` were expected. ``(n, heads * d)``"""
        self.cache.start(batch(tokens))
        n = len(tokens)
        with Graph() as graph:
            view = self.cache.view(graph, n, self.cache.key())
            q = graph.input(DType.F32, D, N_HEAD, n)
            keys: Tensor | None = None
            if outputs:
                keys = graph.input(DType.F32, D, N_HEAD, view.n_stored)
                seen = view.put(7, keys, ops.neg(keys))
            else:
                seen = view.seen(7)
            out = graph.output(self._attend(ops.permute(q, 0, 2, 1, 3), *seen))
            self.executor.allocate(graph)
            q.set(Q[[token for _, _, token in tokens]])
            if keys is not None:
                keys.set(np.concatenate(outputs))
            view.set_inputs(batch(tokens))
            self.executor.compute(graph)
            return out.numpy().reshape(n, -1)

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        if self.cache.flash_attn:
            return ops.flash_attn(q, keys, values, mask, scale=D**-0.5)
        weights = ops.soft_max(ops.mul_mat(keys, q), mask, scale=D**-0.5)
        return ops.cont(ops.permute(ops.mul_mat(values, weights), 0, 2, 1, 3))

    def close(self) -> None:
        self.executor.close()
        self.backend.close()
        self.cache.close()


def batch(tokens: Sequence[tuple[int, int, int]]) -> Batch:
    seqs, positions, ids = (np.array(x, np.int32) for x in zip(*tokens, strict=True))
    return Batch(ids, positions, seqs, np.zeros(0, np.int32))


@pytest.fixture(params=[True, False], ids=["flash", "plain"])
def lab(request: pytest.FixtureRequest) -> Iterator[EncoderLab]:
    lab = EncoderLab(request.param)
    yield lab
    lab.close()


def same(got: Floats, want: Floats) -> None:
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_all_tokens_see_the_output_of_their_sequence(lab: EncoderLab) -> None:
    first, second = vectors(5), vectors(9)
    lab.cache.expect(0, 1, 5)
    lab.cache.expect(3, 0, 9)
    got = lab.put([(3, 0, 2), (0, 1, 4), (3, 1, 5)], first, second)
    same(got[0], expected(2, second))
    same(got[1], expected(4, first))
    same(got[2], expected(5, second))
    same(lab.put([(0, 2, 6)])[0], expected(6, first))  # nothing stored: the graph only reads
    replaced = vectors(3)
    lab.cache.expect(0, 3, 3)
    same(lab.put([(0, 3, 1)], replaced)[0], expected(1, replaced))
    assert lab.cache.cells.n_used == 12 and lab.cache.sequence_length(0) == 4


def test_it_goes_with_its_position(lab: EncoderLab) -> None:
    output = vectors(4)
    lab.cache.expect(0, 6, 4)
    lab.put([(0, 6, 0)], output)
    cache = lab.cache
    cache.copy_prefix(0, 1, 6)  # ends before it
    cache.copy_prefix(0, 2, 7)
    assert (cache.sequence_length(1), cache.sequence_length(2), cache.cells.n_used) == (0, 7, 4)
    cache.discard(0, 1, 3)
    assert cache.sequence_length(0) == 5 and not cache.pending_shifts
    cache.remove(0, 5)
    same(lab.put([(0, 5, 3)])[0], expected(3, output))
    cache.remove(0, 4)
    assert cache.sequence_length(0) == 0
    same(lab.put([(2, 7, 3)])[0], expected(3, output))
    cache.discard(2, 6, 8)
    assert cache.cells.n_used == 0 and cache.can_resume(2, 6) and cache.resume_point(2, 6) == 6
    cache.start(batch([(2, 6, 1)]))
    assert cache.key() == (0, 0)
    with Graph() as graph, pytest.raises(ParameterError, match="skip cross attention"):
        cache.view(graph, 1, (0, 0)).seen(7)


def test_what_does_not_fit_changes_nothing(lab: EncoderLab) -> None:
    output = vectors(200)
    lab.cache.expect(0, 0, 200)
    lab.put([(0, 0, 0)], output)
    lab.cache.expect(1, 0, 57)
    with pytest.raises(ContextFullError):
        lab.cache.start(batch([(1, 0, 0)]))
    lab.cache.remove(0, 0)
    same(lab.put([(1, 0, 3)], output[:57])[0], expected(3, output[:57]))  # still expected
    with pytest.raises(ParameterError, match="compute them apart"):
        lab.cache.start(batch([(1, 1, 0), (2, 0, 0)]))
    with pytest.raises(ParameterError, match="1 or more vectors"):
        lab.cache.expect(0, 0, 0)


def test_save_and_load(lab: EncoderLab) -> None:
    output = vectors(6)
    lab.cache.expect(0, 2, 6)
    lab.put([(0, 2, 0)], output)
    state, without = lab.cache.save_sequence(0, 3), lab.cache.save_sequence(0, 2)
    lab.cache.load_sequence(4, state)
    same(lab.put([(4, 3, 5)])[0], expected(5, output))
    assert lab.cache.sequence_length(4) == 3
    lab.cache.load_sequence(4, without)
    assert lab.cache.sequence_length(4) == 0 and lab.cache.cells.n_used == 6
