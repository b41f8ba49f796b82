"""Several graphs over several back ends: who keeps its memory, and what a dry executor counts."""

from collections.abc import Iterator

import numpy as np
import pytest

from pyggml.errors import BackendError
from pyggml.tensor import Arena, Backend, BufferUsage, DType, Executor, Graph, Tensor, find_device, ops


@pytest.fixture
def backends() -> Iterator[list[Backend]]:
    """Two of them on one device: the scheduler does not care."""
    cpu = find_device("CPU")
    with Backend(cpu, n_threads=1) as first, Backend(cpu, n_threads=1) as second:
        yield [first, second]


class Sum:
    """A graph that adds one to ``n`` numbers, twice."""

    def __init__(self, n: int) -> None:
        self.graph = Graph()
        self.x = self.graph.input(DType.F32, n)
        ones = self.graph.input(DType.F32, 1)
        self.ones = ones
        self.y = self.graph.output(ops.add(ops.add(self.x, ones), ones))
        self.n = n

    def run(self, executor: Executor, value: float) -> None:
        self.x.set(np.full(self.n, value, np.float32))
        self.ones.set(np.ones(1, np.float32))
        executor.compute(self.graph)
        np.testing.assert_array_equal(self.y.numpy(), np.full(self.n, value + 2, np.float32))


def test_small_graphs_keep_their_memory(backends: list[Backend]) -> None:
    with Executor(backends) as executor:
        large = Sum(100_000)
        executor.reserve(large.graph)
        small = [Sum(64 + i) for i in range(7)]
        for s in small:
            executor.allocate(s.graph)
        executor.allocate(large.graph)
        for value in (1.0, 5.0):
            for s in [*small, large, *reversed(small)]:
                assert executor.holds(s.graph)
                s.run(executor, value)
        eighth = Sum(80)
        executor.allocate(eighth.graph)
        assert [executor.holds(s.graph) for s in small] == [True] * 6 + [False], "the one that waited longest"
        with pytest.raises(BackendError, match="allocate"):
            executor.compute(small[6].graph)
        eighth.run(executor, 3.0)
        large.run(executor, 4.0)


def test_a_closed_graph_gives_its_place_back(backends: list[Backend]) -> None:
    with Executor(backends) as executor:
        large = Sum(100_000)
        executor.reserve(large.graph)
        first = Sum(64)
        executor.allocate(first.graph)
        before = executor.n_bytes
        for n in range(65, 90):
            other = Sum(n)
            executor.allocate(other.graph)
            other.run(executor, 1.0)
            other.graph.close()
            del other
        assert executor.n_bytes < before + 8 * 4096
        first.run(executor, 7.0)


def test_a_large_graph_takes_the_place_of_the_one_before(backends: list[Backend]) -> None:
    with Executor(backends) as executor:
        first, second = Sum(100_000), Sum(90_000)
        executor.reserve(first.graph)
        before = executor.n_bytes
        executor.allocate(first.graph)
        executor.allocate(second.graph)
        assert not executor.holds(first.graph) and executor.holds(second.graph) and executor.n_bytes == before
        second.run(executor, 1.0)
        executor.allocate(first.graph)  # again, without building it
        first.run(executor, 2.0)


def test_a_graph_that_is_allocated_again_lives_in_one_place(backends: list[Backend]) -> None:
    with Executor(backends) as executor:
        large = Sum(100_000)
        executor.reserve(large.graph)
        small = [Sum(64 + i) for i in range(3)]
        for _ in range(3):
            for s in small:
                executor.allocate(s.graph)
        for s in small:
            s.run(executor, 1.0)


def weight_and_product(arena: Arena, n: int) -> tuple[Tensor, Graph]:
    weight = arena.new_tensor(DType.F32, (256, n), name="w")
    graph = Graph()
    x = graph.input(DType.F32, 256, 32)
    graph.output(ops.relu(ops.mul_mat(weight, x)))
    return weight, graph


@pytest.mark.parametrize("n_backends", [1, 2])
def test_dry_counts_what_real_takes(n_backends: int) -> None:
    cpu = find_device("CPU")
    found: list[tuple[int, list[int]]] = []
    for dry in (True, False):
        stack = [Backend(cpu, n_threads=1) for _ in range(n_backends)]
        with Arena(static=True) as arena, Executor(stack, dry=dry) as executor:
            weight, graph = weight_and_product(arena, 512)
            (buffer,) = arena.allocate((cpu.as_dry() if dry else cpu).buffer_type, "the weight")
            buffer.set_usage(BufferUsage.WEIGHTS)
            executor.reserve(graph)
            if dry:
                assert not weight.ptr.data and buffer.size == 256 * 512 * 4
                with pytest.raises(BackendError, match="dry"):
                    executor.allocate(graph)
                assert arena.allocate(cpu.as_dry().buffer_type, "it again") == []
            found.append((arena.n_bytes, executor.sizes))
        for backend in stack:
            backend.close()
    assert found[0] == found[1] and sum(found[0][1]) > 32 * 512 * 4
