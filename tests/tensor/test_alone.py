"""What is computed for a token does not depend on the few others in its batch: to the last bit, with our patches.

Speculative decoding lives on it: a draft is verified in a batch, and must confirm what the model would have said alone.
"""

from collections.abc import Iterator

import numpy as np
import pytest

from pyggml.tensor import (
    Arena,
    Backend,
    BufferUsage,
    Device,
    DType,
    Executor,
    Graph,
    Session,
    find_device,
    ops,
    quantize,
)

Array = np.ndarray
N_MAX = 8
TYPES = [DType.Q4_0, DType.Q4_1, DType.Q5_0, DType.Q5_1, DType.Q8_0, DType.MXFP4]
K_TYPES = [DType.Q2_K, DType.Q3_K, DType.Q4_K, DType.Q5_K, DType.Q6_K]


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    device = find_device("CPU")
    features = device.features()
    if "AVX2" not in features or any(name.startswith(("AVX512", "AMX", "AVX_VNNI")) for name in features):
        pytest.skip("other instructions, other kernels")
    with Backend(device, n_threads=2) as opened:
        yield opened


def repacked(device: Device) -> object:
    """The buffer type for weights that are rearranged."""
    return device.extra_buffer_types()[-1]


def products(backend: Backend, dtype: DType, *, repack: bool, x: Array, n_out: int) -> Array:
    """``x (n, n_in)`` times random weights."""
    n, n_in = x.shape
    weights = np.random.default_rng(n_in).normal(size=(n_out, n_in)).astype(np.float32)
    with Arena() as arena, Graph() as graph, Executor([backend]) as executor:
        w = arena.new_tensor(dtype, (n_in, n_out))
        kind = repacked(backend.device) if repack else backend.device.buffer_type
        for buffer in arena.allocate(kind, "weights"):
            buffer.set_usage(BufferUsage.WEIGHTS)
        w.set_bytes(quantize(weights, dtype))
        given = graph.input(DType.F32, n_in, n)
        result = graph.output(ops.mul_mat(w, given))
        graph.add(result)
        executor.allocate(graph)
        given.set_bytes(x.tobytes())
        executor.compute(graph)
        return result.numpy().reshape(n, n_out).copy()


@pytest.mark.parametrize(
    ("dtype", "repack"),
    [(t, False) for t in TYPES + K_TYPES] + [(t, True) for t in (DType.Q4_0, DType.Q4_K, DType.IQ4_NL, DType.MXFP4)],
    ids=lambda value: value.name if isinstance(value, DType) else "repacked" if value else "plain",
)
def test_products(backend: Backend, dtype: DType, repack: bool) -> None:
    x = np.random.default_rng(1).normal(size=(N_MAX, 1536)).astype(np.float32)
    alone = np.concatenate([products(backend, dtype, repack=repack, x=row[None], n_out=96) for row in x])
    for n in (2, 3, 4, 5, 8):
        together = products(backend, dtype, repack=repack, x=x[:n], n_out=96)
        np.testing.assert_array_equal(together, alone[:n], err_msg=f"{n} columns")


@pytest.mark.parametrize("dtype", [DType.Q4_1, DType.Q5_0, DType.Q5_1, DType.Q8_0], ids=lambda dtype: dtype.name)
def test_products_of_many(backend: Backend, dtype: DType) -> None:
    """Tiles of four rows and two columns, by two threads, with some left over; and rows that tiles do not take."""
    x = np.random.default_rng(2).normal(size=(33, 96)).astype(np.float32)
    for n_out in (4, 20, 22):
        alone = np.concatenate([products(backend, dtype, repack=False, x=row[None], n_out=n_out) for row in x])
        for n in (9, 32, 33):
            together = products(backend, dtype, repack=False, x=x[:n], n_out=n_out)
            np.testing.assert_array_equal(together, alone[:n], err_msg=f"{n_out} rows, {n} columns")


def attend(q: Array, k: Array, v: Array, mask: Array, *, n_threads: int) -> Array:
    """``q (n, h, d)``, ``k, v (cells, h_kv, d)``, ``mask (n, cells)`` to ``(n, h, d)``."""
    with Session("CPU", n_threads=n_threads) as session:
        tensors = [session.tensor(a) for a in (q.transpose(1, 0, 2), k.transpose(1, 0, 2), v.transpose(1, 0, 2))]
        result = ops.flash_attn(*tensors, session.tensor(mask), scale=q.shape[2] ** -0.5).numpy()
        return np.array(result).reshape(q.shape)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("d", "h", "h_kv"), [(64, 9, 3), (256, 4, 1), (40, 2, 2)])
@pytest.mark.parametrize("n_past", [0, 100, 250, 509, 1020])
def test_attention_over_an_f16_cache(d: int, h: int, h_kv: int, n_past: int) -> None:
    """Neither the batch, nor how many cells the graph sees behind the last one, nor threads change a bit."""
    random = np.random.default_rng(n_past + d)
    k, v = (random.normal(size=(1280, h_kv, d)).astype(np.float16) for _ in range(2))
    q = random.normal(size=(N_MAX, h, d)).astype(np.float32)
    seen = np.arange(1280)[None, :] <= n_past + np.arange(N_MAX)[:, None]
    mask = np.where(seen, 0, -np.inf).astype(np.float16)

    def computed(first: int, n: int, *, n_threads: int) -> Array:
        cells = -(-(n_past + first + n) // 256) * 256
        rows = slice(first, first + n)
        return attend(q[rows], k[:cells], v[:cells], mask[rows, :cells], n_threads=n_threads)

    alone = np.concatenate([computed(i, 1, n_threads=2) for i in range(N_MAX)])
    for n, n_threads in ((2, 2), (5, 1), (8, 2), (8, 3)):
        np.testing.assert_array_equal(computed(0, n, n_threads=n_threads), alone[:n], err_msg=f"{n} tokens")


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("n", [1, 255, 256, 257, 700])
def test_it_does_not_matter_where_cells_lie(n: int) -> None:
    """A sequence that has a cache to itself, and one whose cells stand among those of others."""
    random = np.random.default_rng(n)
    k, v = (random.normal(size=(n, 3, 64)).astype(np.float16) for _ in range(2))
    q = random.normal(size=(3, 9, 64)).astype(np.float32)
    expected = attend(q, k, v, np.zeros((3, n), np.float16), n_threads=2)
    for n_cells in (n + 5, 3 * n + 40):
        where = np.sort(random.choice(n_cells, n, replace=False))
        others_k, others_v = (random.normal(size=(n_cells, 3, 64)).astype(np.float16) for _ in range(2))
        others_k[where], others_v[where] = k, v
        mask = np.full((3, n_cells), -np.inf, np.float16)
        mask[:, where] = 0
        for rows, n_threads in ((slice(0, 3), 2), (slice(0, 1), 2), (slice(2, 3), 1), (slice(1, 2), 3)):
            got = attend(q[rows], others_k, others_v, mask[rows], n_threads=n_threads)
            np.testing.assert_array_equal(got, expected[rows], err_msg=f"{n} of {n_cells} cells, {n_threads} threads")
