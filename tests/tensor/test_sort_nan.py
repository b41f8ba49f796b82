"""Sorting with NaN: upstream's comparison let std::sort leave its row, so this runs in a process of its own.

A session refuses NaN before it sorts; an executor that computes unchecked, as an engine does, must survive it.
"""

import subprocess
import sys

CHILD = """
import numpy as np
from pyggml.tensor import Backend, DType, Executor, Graph, find_device, ops

def computed(backend, x, make):
    with Graph() as graph, Executor([backend]) as executor:
        given = graph.input(DType.F32, x.shape[1], x.shape[0])
        result = graph.output(make(given))
        graph.add(result)
        executor.allocate(graph)
        given.set_bytes(x.tobytes())
        executor.compute(graph)
        return result.numpy().reshape(len(x), -1).copy()

random = np.random.default_rng(0)
with Backend(find_device("CPU"), n_threads=2) as backend:
    for n in (2, 16, 17, 64, 1000):
        for share in (0.01, 0.3, 0.9, 1.0):
            x = random.normal(size=(8, n)).astype(np.float32)
            x[random.random(x.shape) < share] = np.nan
            x[0] = np.nan
            numbers = np.count_nonzero(~np.isnan(x), axis=1)
            for direction in (ops.SortOrder.ASC, ops.SortOrder.DESC):
                order = computed(backend, x, lambda a: ops.argsort(a, order=direction))
                assert (np.sort(order, axis=1) == np.arange(n)).all(), "not a permutation"
                for row, indices, count in zip(x, order, numbers):
                    got = row[indices]
                    assert not np.isnan(got[:count]).any() and np.isnan(got[count:]).all(), "NaN is not last"
                    steps = np.diff(got[:count])
                    assert (steps >= 0 if direction == ops.SortOrder.ASC else steps <= 0).all(), "not sorted"
            k = min(n, 8)
            best = computed(backend, x, lambda a: ops.top_k(a, k=k))
            for row, indices, count in zip(x, best, numbers):
                assert len(set(indices.tolist())) == k and 0 <= indices.min() and indices.max() < n
                want = np.sort(row[~np.isnan(row)])[::-1][:k]
                got = row[indices]
                assert (np.sort(got[~np.isnan(got)])[::-1] == want).all(), "not the largest"
"""


def test_nan_comes_last_and_nothing_is_read_outside() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-2000:]}"
