"""The CPU kernels that patches/ put in the place of ggml's, in the shapes where they can go wrong."""

import numpy as np
import pytest

from pyggml.tensor import DType, Session, ops

Array = np.ndarray


def attention(q: Array, k: Array, v: Array, mask: Array, *, scale: float, softcap: float) -> Array:
    """``q (n, h, d)``, ``k, v (cells, h_kv, d)``, ``mask (n, cells)`` to ``(n, h, d)``, float64."""
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.einsum("nhd,chd->nhc", q, k) * scale
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    scores = scores + mask[:, None, :]
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("nhc,chd->nhd", weights / weights.sum(axis=-1, keepdims=True), v)


@pytest.mark.parametrize("cells", [1, 15, 16, 17, 64, 65, 256, 511, 512, 1040])
@pytest.mark.parametrize(
    ("n", "h", "h_kv", "d"), [(1, 9, 3, 64), (1, 4, 1, 256), (3, 4, 2, 40), (8, 2, 2, 72), (5, 3, 3, 8)]
)
@pytest.mark.parametrize("density", [1.0, 0.4, 0.02])
def test_attention_over_an_f16_cache(cells: int, n: int, h: int, h_kv: int, d: int, density: float) -> None:
    random = np.random.default_rng(cells * 1000 + n * 100 + d)
    q = random.normal(size=(n, h, d)).astype(np.float32)
    k, v = (random.normal(size=(cells, h_kv, d)).astype(np.float16) for _ in range(2))
    hidden = random.random((n, cells)) >= density
    hidden[np.arange(n), random.integers(0, cells, n)] = False  # everybody sees something
    mask = np.where(hidden, -np.inf, 0.0)
    mask[:, ::7] += np.where(hidden[:, ::7], 0.0, -0.5)  # masks may hold numbers, too
    softcap = 20.0 if d == 40 else 0.0
    with Session("CPU", n_threads=2) as session:
        tensors = [session.tensor(a) for a in (q.transpose(1, 0, 2), k.transpose(1, 0, 2), v.transpose(1, 0, 2))]
        seen = session.tensor(mask.astype(np.float16))
        result = ops.flash_attn(*tensors, seen, scale=d**-0.5, logit_softcap=softcap).numpy()
    exact = attention(
        q.astype(np.float16).astype(np.float64), k.astype(np.float64), v.astype(np.float64), mask,
        scale=d**-0.5, softcap=softcap,
    )  # fmt: skip
    np.testing.assert_allclose(result.reshape(exact.shape), exact, rtol=0, atol=2e-3)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 9, 33])
@pytest.mark.parametrize(("n_in", "n_out"), [(32, 4), (576, 192), (64, 6), (1536, 31), (96, 100)])
def test_q4_1_products(n: int, n_in: int, n_out: int) -> None:
    random = np.random.default_rng(n * 10000 + n_in + n_out)
    x = random.normal(size=(n, n_in)).astype(np.float32)
    with Session("CPU", n_threads=2) as session:
        w = session.tensor(random.normal(size=(n_out, n_in)), dtype=DType.Q4_1)
        result, weights = ops.mul_mat(w, session.tensor(x)).numpy(), w.numpy().astype(np.float64)
    exact = x.astype(np.float64) @ weights.T
    # Activations are rounded to 8 bits: half a step of each block's largest value, over all of them.
    atol = np.abs(x).max() / 127 * np.sqrt(n_in) * np.abs(weights).max()
    np.testing.assert_allclose(result.reshape(n, n_out), exact, rtol=0, atol=atol)
