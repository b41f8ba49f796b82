"""The people's API: sessions, arrays, displays, profiles, custom operations."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pyggml.errors import BackendError, ClosedError, DTypeError, ParameterError, ShapeError
from pyggml.tensor import Backend, DType, Executor, Graph, Session, by_op, find_device, ops, table

ROOT = Path(__file__).parents[2]


def test_example_runs() -> None:
    script = str(ROOT / "examples/matmul.py")
    done = subprocess.run([sys.executable, script, "CPU"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "largest error" in done.stdout
    with pytest.raises(BackendError, match="no device 'nowhere'"):
        argv, sys.argv = sys.argv, [script, "nowhere"]
        try:
            runpy.run_path(script)
        finally:
            sys.argv = argv


def test_values_are_computed_once(s: Session) -> None:
    calls = []

    def count(out: np.ndarray, x: np.ndarray) -> None:
        calls.append(1)
        out[...] = x + 1

    x = s.tensor([1.0, 2.0])
    y = ops.custom(count, x, dtype=DType.F32, shape=(2,))
    assert not y.is_allocated
    np.testing.assert_array_equal(y.numpy(), [2, 3])
    np.testing.assert_array_equal((y * y).numpy(), [4, 9])
    np.testing.assert_array_equal(y.numpy(), [2, 3])
    assert len(calls) == 1
    a, b = y + 1, y + 2
    s.compute(a, b, a)
    assert a.is_allocated
    assert b.is_allocated


def test_shared_nodes_run_once_within_a_graph(s: Session) -> None:
    calls = []

    def count(out: np.ndarray, x: np.ndarray) -> None:
        calls.append(1)
        out[...] = x

    y = ops.custom(count, s.tensor([1.0]), dtype=DType.F32, shape=(1,))
    s.compute(y + 1, y + 2)
    assert len(calls) == 1


def test_custom_operations(s: Session) -> None:
    def outer(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
        assert not a.flags.writeable
        out[...] = np.outer(a, b)

    a, b = s.tensor([1.0, 2.0, 3.0]), s.tensor([4.0, 5.0])
    np.testing.assert_array_equal(
        ops.custom(outer, a, b, dtype=DType.F32, shape=(2, 3)).numpy(), [[4, 5], [8, 10], [12, 15]]
    )

    def fail(out: np.ndarray, a: np.ndarray) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        ops.custom(fail, a, dtype=DType.F32, shape=(3,)).numpy()
    with pytest.raises(DTypeError, match="BF16"):
        ops.custom(outer, a, dtype=DType.BF16, shape=(3,))
    with pytest.raises(ShapeError, match="operands"):
        ops.custom(outer, dtype=DType.F32, shape=(3,))


def test_in_place_operations_run_once(s: Session) -> None:
    cache = s.tensor(np.zeros((4, 2), np.float32))
    row = s.tensor(np.ones((1, 2), np.float32))
    write = ops.set_rows(cache, row, s.tensor(np.array([1])))
    twice = ops.add(write, write)
    np.testing.assert_array_equal(twice.numpy()[1], [2, 2])
    cache.set(np.zeros((4, 2)))
    np.testing.assert_array_equal(write.numpy(), np.zeros((4, 2)))  # it ran with the graph before


def test_types_on_the_way_in(s: Session) -> None:
    assert s.tensor([1.0, 2.0]).dtype == DType.F32
    assert s.tensor([1, 2]).dtype == DType.I32
    assert s.tensor(np.zeros(3)).dtype == DType.F32
    assert s.tensor(np.zeros(3, np.float16)).dtype == DType.F16
    assert s.tensor(3.5).item() == 3.5
    x = np.random.default_rng(0).standard_normal((3, 256), np.float32)
    for dtype in (DType.Q4_0, DType.Q6_K, DType.IQ4_XS, DType.BF16, DType.F16):
        assert np.abs(s.tensor(x, dtype=dtype).numpy() - x).max() < 0.5
    weights = np.ones(256, np.float32)
    assert np.abs(s.tensor(x, dtype=DType.Q3_K, importance=weights).numpy() - x).max() < 1


def test_views_of_numpy() -> None:
    s = Session("CPU", n_threads=1)
    x = s.tensor(np.arange(6, dtype=np.float32).reshape(2, 3))
    view = x.numpy_view()
    assert view.shape == (2, 3)
    view[0, 0] = 10
    assert x.numpy()[0, 0] == 10
    assert np.asarray(x[1]).tolist() == [3, 4, 5]
    assert x[1].numpy_view().tolist() == [3, 4, 5]
    assert np.from_dlpack(x).tolist() == view.tolist()
    assert x.__dlpack_device__() == (1, 0)
    with pytest.raises(DTypeError, match="numpy has no type"):
        s.tensor(np.zeros(32), dtype=DType.Q8_0).numpy_view()
    s.close()
    view[1, 2] = 7  # the memory outlives the session
    assert view.tolist() == [[10, 1, 2], [3, 4, 7]]


def test_displays(s: Session) -> None:
    x = s.tensor(np.arange(6, dtype=np.float32).reshape(2, 3), name="x")
    assert repr(x) == "<Tensor 'x' F32 NONE ggml[3, 2] numpy(2, 3) CPU [0, 1, 2]>".replace("2]>", "2, ...]>")
    y = x.softmax()
    assert "no memory" in repr(y)
    assert "SOFT_MAX" in repr(y)
    assert "<table>" in x._repr_html_()
    assert "<table>" not in y._repr_html_()
    with Graph() as graph:
        a = graph.input(DType.F32, 4, 3, name="a")
        graph.output(ops.add(ops.mul_mat(a, a), graph.input(DType.F32, 3, 3, name='b"')))
        dot = graph.to_dot()
        assert dot.startswith("digraph")
        assert dot.count("->") == 4
        assert len(graph.leaves()) == 2
        assert "MUL_MAT" in dot


@pytest.mark.parametrize("n_backends", [1, 2])
def test_profile(n_backends: int) -> None:
    backends = [Backend(find_device("CPU"), n_threads=1) for _ in range(n_backends)]
    with Graph() as graph, Executor(backends) as executor:
        x = graph.input(DType.F32, 64, 64)
        y = ops.mul_mat(x, ops.mul_mat(x, x))
        graph.output(ops.neg(y.reshape(4096)))
        executor.allocate(graph)
        x.set(np.eye(64))
        times = executor.profile(graph)
        assert [t.op for t in times] == ["MUL_MAT", "MUL_MAT", "NEG"]
        assert all(t.seconds > 0 for t in times)
        np.testing.assert_array_equal(graph.outputs[0].numpy(), -np.eye(64).ravel())
    totals = by_op(times)
    assert {(t.op, t.count) for t in totals} == {("MUL_MAT", 2), ("NEG", 1)}
    assert "MUL_MAT" in table(times)
    for backend in backends:
        backend.close()


def test_session_profile(s: Session) -> None:
    y = s.tensor(np.eye(4, dtype=np.float32)).softmax()
    assert [t.op for t in s.profile(y)] == ["SOFT_MAX"]
    assert y.is_allocated


@pytest.mark.parametrize("n_backends", [1, 2])
def test_indices_are_checked(n_backends: int) -> None:
    backends = [Backend(find_device("CPU"), n_threads=1) for _ in range(n_backends)]
    with Graph() as graph, Executor(backends) as executor:
        x, ids = graph.input(DType.F32, 4, 3), graph.input(DType.I32, 2)
        scores = graph.input(DType.F32, 2)
        computed = ops.cast(scores, dtype=DType.I32)
        given, late = ops.get_rows(x, ids), ops.get_rows(x, computed)
        graph.output(given)
        graph.output(late)
        executor.allocate(graph)

        def run(first: list[int], second: list[float]) -> None:
            x.set(np.arange(12))
            ids.set(first)
            scores.set(second)
            executor.compute(graph, checked=True)

        run([2, 0], [1.0, 2.0])
        np.testing.assert_array_equal(given.numpy(), [[8, 9, 10, 11], [0, 1, 2, 3]])
        np.testing.assert_array_equal(late.numpy(), [[4, 5, 6, 7], [8, 9, 10, 11]])
        for bad in ([3, 0], [-1, 0]):
            with pytest.raises(ParameterError, match=rf"GET_ROWS.*0 to 2, got {min(bad) or max(bad)}"):
                run(bad, [0.0, 0.0])
        with pytest.raises(ParameterError, match="got 77"):
            run([0, 0], [0.0, 77.0])
    for backend in backends:
        backend.close()


def test_closed_session() -> None:
    s = Session("CPU", n_threads=1)
    x = s.tensor([1.0])
    y = x + 1
    s.close()
    s.close()
    for call in (x.numpy, y.numpy, lambda: s.tensor([1.0]), lambda: x + 1, lambda: s.compute(y), lambda: x.name):
        with pytest.raises(ClosedError):
            call()
    assert "closed" in repr(x)


def test_not_enough_device_memory_is_an_error(s: Session) -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with pytest.raises((BackendError, ShapeError)):
        s.empty(DType.F32, 1 << 20, max(1 << 20, total >> 14))
