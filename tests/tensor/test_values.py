"""Operations against numpy: element by element, sums, norms, products, rows, shapes."""

from collections.abc import Callable
from math import erf
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pyggml.tensor import DType, Session, Tensor, ops

Array = npt.NDArray[Any]


def close(result: Tensor, expected: npt.ArrayLike, *, atol: float = 1e-5) -> None:
    values = result.numpy()
    want = np.asarray(expected)
    assert values.size == want.size, (values.shape, want.shape)
    np.testing.assert_allclose(values.reshape(want.shape), want, rtol=1e-4, atol=atol)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * x * (1 + 0.044715 * x * x)))


gelu_erf = np.vectorize(lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))))


UNARY: dict[str, Callable[[Array], Array]] = {
    "neg": np.negative,
    "abs": np.abs,
    "sgn": np.sign,
    "step": lambda x: (x > 0).astype(np.float32),
    "sqr": np.square,
    "sin": np.sin,
    "cos": np.cos,
    "exp": np.exp,
    "expm1": np.expm1,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "round": lambda x: np.sign(x) * np.floor(np.abs(x) + 0.5),
    "relu": lambda x: np.maximum(x, 0),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "softplus": lambda x: np.log1p(np.exp(x)),
    "hardsigmoid": lambda x: np.clip((x + 3) / 6, 0, 1),
    "hardswish": lambda x: x * np.clip((x + 3) / 6, 0, 1),
    "silu": lambda x: x * sigmoid(x),
    "gelu": gelu,
    "gelu_erf": gelu_erf,
    "gelu_quick": lambda x: x * sigmoid(1.702 * x),
}


@pytest.mark.parametrize("name", UNARY)
def test_unary(s: Session, rng: np.random.Generator, name: str) -> None:
    x = rng.standard_normal((3, 5), np.float32) * 2
    # ggml looks gelu up in a table of float16
    close(getattr(ops, name)(s.tensor(x)), UNARY[name](x), atol=2e-3 if "gelu" in name else 1e-5)
    half = getattr(ops, name)(s.tensor(x.astype(np.float16)))
    assert half.dtype == DType.F16
    close(half, UNARY[name](x.astype(np.float16).astype(np.float32)), atol=2e-2)


@pytest.mark.parametrize("name", ["sqrt", "log"])
def test_unary_of_positive(s: Session, rng: np.random.Generator, name: str) -> None:
    x = rng.random((4, 3), np.float32) + 0.1
    close(getattr(ops, name)(s.tensor(x)), getattr(np, name)(x))


def test_activations_with_numbers(s: Session, rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 4), np.float32)
    t = s.tensor(x)
    close(ops.leaky_relu(t, slope=0.1), np.where(x > 0, x, 0.1 * x))
    close(ops.clamp(t, low=-0.5, high=0.25), np.clip(x, -0.5, 0.25))
    close(t, x)  # clamp changed a copy
    close(ops.fill(t, value=2.5), np.full_like(x, 2.5))
    an, ap = np.log1p(np.exp(0.3)), np.log1p(np.exp(0.7))
    want = np.where(x > 0, ap * x * x + 0.5 * x, (np.expm1(np.minimum(x, -1e-6)) - x) * (0.5 + an) + 0.5 * x)
    close(ops.xielu(t, alpha_n=0.3, alpha_p=0.7, beta=0.5, eps=-1e-6), want)


GATES: dict[str, Callable[[Array], Array]] = {
    "reglu": lambda x: np.maximum(x, 0),
    "geglu": gelu,
    "swiglu": lambda x: x * sigmoid(x),
    "geglu_erf": gelu_erf,
    "geglu_quick": lambda x: x * sigmoid(1.702 * x),
}


@pytest.mark.parametrize("name", GATES)
def test_gated_units(s: Session, rng: np.random.Generator, name: str) -> None:
    g, u = rng.standard_normal((2, 3, 4), np.float32)
    want = GATES[name](g) * u
    close(getattr(ops, f"{name}_split")(s.tensor(g), s.tensor(u)), want, atol=3e-3)
    close(getattr(ops, name)(s.tensor(np.hstack([g, u]))), want, atol=3e-3)
    close(getattr(ops, name)(s.tensor(np.hstack([u, g])), swapped=True), want, atol=3e-3)


def test_swiglu_oai(s: Session, rng: np.random.Generator) -> None:
    g, u = rng.standard_normal((2, 3, 4), np.float32) * 4
    x, y = np.minimum(g, 2.0), np.clip(u, -2.0, 2.0)
    close(ops.swiglu_oai(s.tensor(g), s.tensor(u), alpha=1.7, limit=2.0), x * sigmoid(1.7 * x) * (y + 1))
    close(ops.swiglu_clamp(s.tensor(g), s.tensor(u), limit=2.0), x * sigmoid(x) * y)


def test_arithmetic_and_operators(s: Session, rng: np.random.Generator) -> None:
    a = rng.standard_normal((2, 3, 4), np.float32)
    b = rng.standard_normal((1, 4), np.float32) + 3
    x, y = s.tensor(a), s.tensor(b)
    close(x + y, a + b)
    close(y + x, a + b)
    close(x - y, a - b)
    close(x * y, a * b)
    close(y * x, a * b)
    close(x / y, a / b)
    close(-x, -a)
    close(2 * x - 1, 2 * a - 1)
    close(1 - x / 4, 1 - a / 4)
    close(np.float32(3) * x, 3 * a)
    close(ops.add(s.tensor(a.astype(np.float16)), s.tensor(b)), a + b, atol=1e-2)
    close(ops.add_cast(s.tensor(a.astype(np.float16)), y, dtype=DType.F32), a.astype(np.float16) + b)
    q = s.tensor(np.ones((2, 32), np.float32), dtype=DType.Q8_0)
    close(ops.add(q, s.tensor(np.ones((2, 32), np.float32))), np.full((2, 32), 2.0), atol=2e-2)
    close(ops.add_cast(q, s.tensor(np.ones((2, 32), np.float32)), dtype=DType.F32), np.full((2, 32), 2.0), atol=2e-2)


def test_acc_and_set(s: Session, rng: np.random.Generator) -> None:
    a = rng.standard_normal((4, 5), np.float32)
    b = rng.standard_normal((2, 3), np.float32)
    want = a.copy()
    want[1:3, 1:4] += b
    offset = (5 + 1) * 4
    close(ops.acc(s.tensor(a), s.tensor(b), offset=offset), want)
    want[1:3, 1:4] = b
    x = s.tensor(a)
    close(ops.set_region(x, s.tensor(b), offset=offset), want)
    close(x, a)
    ops.set_region(x, s.tensor(b), offset=offset, inplace=True).numpy()
    close(x, want)


def test_reductions(s: Session, rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 4, 7), np.float32)
    t = s.tensor(x)
    close(ops.sum(t), x.sum())
    close(ops.sum_rows(t), x.sum(-1, keepdims=True))
    close(ops.mean(t), x.mean(-1, keepdims=True))
    close(ops.cumsum(t), np.cumsum(x, -1))
    close(ops.argmax(s.tensor(x[0])), x[0].argmax(-1))
    close(ops.argsort(t), np.argsort(x, -1))
    close(ops.argsort(t, order=ops.SortOrder.DESC), np.argsort(-x, -1))
    close(ops.argsort_top_k(t, k=3), np.argsort(-x, -1)[..., :3])
    close(s.tensor(np.sort(ops.top_k(t, k=3).numpy(), -1)), np.sort(np.argsort(-x, -1)[..., :3], -1))
    i = rng.integers(0, 3, (4, 5), np.int32)
    j = rng.integers(0, 3, (4, 5), np.int32)
    assert ops.count_equal(s.tensor(i), s.tensor(j)).item() == (i == j).sum()
    i, j = rng.integers(0, 3, (2, 2, 3, 4, 5), np.int32)
    assert ops.count_equal(s.tensor(i), s.tensor(j)).item() == (i == j).sum()


def test_norms(s: Session, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 4, 3, 6), np.float32)
    t = s.tensor(x)
    close(ops.norm(t, eps=1e-5), (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5))
    close(ops.rms_norm(t, eps=1e-5), x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5))
    close(ops.l2_norm(t, eps=1e-5), x / np.sqrt((x * x).sum(-1, keepdims=True)))
    groups = x.reshape(2, 2, 2 * 3 * 6)
    want = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(groups.var(-1, keepdims=True) + 1e-5)
    close(ops.group_norm(t, n_groups=2, eps=1e-5), want.reshape(x.shape))


def test_softmax(s: Session, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 5), np.float32)
    mask = np.where(rng.random((3, 5)) < 0.3, -np.inf, 0).astype(np.float32)
    mask[:, 0] = 0

    def soft(z: Array) -> Array:
        e = np.exp(z - z.max(-1, keepdims=True))
        return np.asarray(e / e.sum(-1, keepdims=True))

    close(s.tensor(x).softmax(), soft(x))
    close(ops.soft_max(s.tensor(x), s.tensor(mask), scale=0.5), soft(x * 0.5 + mask))
    close(ops.soft_max(s.tensor(x), s.tensor(mask.astype(np.float16))), soft(x + mask))
    sinks = rng.standard_normal(2, np.float32)
    with_sink = soft(np.concatenate([x, np.broadcast_to(sinks[:, None, None], (2, 3, 1))], -1))[..., :-1]
    close(ops.add_sinks(ops.soft_max(s.tensor(x)), s.tensor(sinks)), with_sink)
    slopes = np.array([2.0**-4, 2.0**-8])[:, None, None]  # Press et al. 2021: 2^(-8 i / n)
    bias = -np.abs(rng.standard_normal((3, 5), np.float32))
    close(ops.soft_max(s.tensor(x), s.tensor(bias), max_bias=8.0), soft(x + slopes * bias), atol=1e-4)


def test_products(s: Session, rng: np.random.Generator) -> None:
    a = rng.standard_normal((2, 5, 8), np.float32)
    b = rng.standard_normal((4, 3, 8), np.float32)
    close(ops.mul_mat(s.tensor(a), s.tensor(b)), b @ np.repeat(a, 2, 0).transpose(0, 2, 1))
    close(ops.mul_mat(s.tensor(a), s.tensor(b), prec=ops.PREC_F32), b @ np.repeat(a, 2, 0).transpose(0, 2, 1))
    m, n = rng.standard_normal((3, 8), np.float32), rng.standard_normal((8, 6), np.float32)
    close(s.tensor(m) @ s.tensor(n), m @ n)
    close(s.tensor(m) @ s.tensor(n.T.copy()).T, m @ n)
    close(s.tensor(m).T @ s.tensor(m), m.T @ m)
    close(ops.out_prod(s.tensor(m), s.tensor(m)), m.T @ m)
    experts = rng.standard_normal((4, 6, 8), np.float32)
    x = rng.standard_normal((3, 1, 8), np.float32)
    ids = rng.integers(0, 4, (3, 2)).astype(np.int32)
    want = np.einsum("tuok,tk->tuo", experts[ids], x[:, 0])
    close(ops.mul_mat_id(s.tensor(experts), s.tensor(x), s.tensor(ids)), want)
    bias = rng.standard_normal((4, 6), np.float32)
    close(ops.add_id(s.tensor(want.astype(np.float32)), s.tensor(bias), s.tensor(ids)), want + bias[ids])


@pytest.mark.parametrize(
    "dtype", [d for d in DType if d.is_quantized and d.name[:2] in ("Q4", "Q5", "Q6", "Q8", "IQ4")]
)
def test_product_of_quantized_weights(s: Session, rng: np.random.Generator, dtype: DType) -> None:
    if dtype in (DType.Q8_1, DType.Q8_K):
        pytest.skip("no weights of this type")
    w = rng.standard_normal((3, 256), np.float32)
    x = rng.standard_normal((2, 256), np.float32)
    t = s.tensor(w, dtype=dtype)
    close(ops.mul_mat(t, s.tensor(x)), x @ t.numpy().T, atol=0.6)
    ids = np.array([2, 0], np.int32)
    close(ops.get_rows(t, s.tensor(ids)), t.numpy()[ids])
    close(ops.cast(t, dtype=DType.F32), t.numpy())
    np.testing.assert_array_equal(t.rows(1, 3), t.numpy()[1:3])


def test_rows(s: Session, rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 4), np.float32)
    ids = np.array([4, 0, 0], np.int32)
    for source in (x, x.astype(np.float16), (x * 10).astype(np.int32)):
        close(ops.get_rows(s.tensor(source), s.tensor(ids)), source[ids])
    t = s.tensor(x)
    rows = rng.standard_normal((2, 4), np.float32)
    close(ops.set_rows(t, s.tensor(rows), s.tensor(np.array([3, 1], np.int64))), [x[0], rows[1], x[2], rows[0], x[4]])
    close(t, [x[0], rows[1], x[2], rows[0], x[4]])


def test_shapes(s: Session, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 4, 5), np.float32)
    t = s.tensor(x)
    close(t.reshape(20, -1), x.reshape(6, 20))
    close(t.T.cont(), x.swapaxes(-1, -2))
    close(t.permute(2, 0, 1, 3).cont(), permuted(x, (2, 0, 1, 3)))
    close(t.permute(0, 2, 1, 3), permuted(x, (0, 2, 1, 3)))
    close(t[1], x[1])
    close(t[1, -1], x[1, -1])
    close(t[..., 1:3], x[..., 1:3])
    close(t[:, 1:, 2], x[:, 1:, 2])
    close(t.T[..., 1:3].cont(), x.swapaxes(-1, -2)[..., 1:3])
    close(t[1][2][3], x[1, 2, 3])
    close(ops.view(t, (5, 2), strides=(40,), offset=20), x.reshape(-1)[5:].copy()[:15].reshape(3, 5)[[0, 2]])
    close(ops.dup(t.T), x.swapaxes(-1, -2))
    close(ops.cont(t.T, 20, 6), x.swapaxes(-1, -2).reshape(6, 20))
    close(ops.repeat_to(s.tensor(x[0, 0]), 10, 4, 2), np.tile(x[0, 0], (2, 1, 2)))
    close(ops.repeat(s.tensor(x[0, :1]), t), np.broadcast_to(x[0, :1], x.shape))
    close(ops.repeat_back(t, s.tensor(x[:1, :, :1])), x.sum((0, 2), keepdims=True)[0:1])
    for dim in range(4):
        close(ops.concat(t, t, dim=dim), np.concatenate([x, x], 3 - dim))
    i = (x * 10).astype(np.int32)
    close(s.tensor(i).cast(DType.F32), i)
    close(t.cast(DType.I32), x.astype(np.int32))
    close(t.cast(DType.F16), x, atol=1e-2)
    target = s.empty(DType.F16, 5, 4, 3, 2)
    close(ops.cpy(t, target), x, atol=1e-2)
    close(target, x, atol=1e-2)


def permuted(x: Array, axes: tuple[int, ...]) -> Array:
    """ggml's convention on numpy's order: dimension i becomes dimension axes[i], both counted from the fastest."""
    target = [0] * 4
    for i, axis in enumerate(axes):
        target[3 - axis] = 3 - i
    return x.transpose(target)


def test_masks(s: Session, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 4, 4), np.float32)
    t = s.tensor(x)
    close(ops.diag_mask_zero(t, n_past=1), np.tril(x, 1))
    np.testing.assert_array_equal(np.isinf(ops.diag_mask_inf(t, n_past=0).numpy()), np.triu(np.ones_like(x), 1) > 0)
    kinds = {"UPPER_DIAG": np.triu(x), "UPPER": np.triu(x, 1), "LOWER_DIAG": np.tril(x), "LOWER": np.tril(x, -1)}
    for name, want in kinds.items():
        close(ops.tri(t, kind=ops.TriType[name]), want)
    close(ops.diag(s.tensor(x[:1, :1])), np.diag(x[0, 0]))
    close(ops.arange(t, start=1.0, stop=2.0, step=0.25), [1, 1.25, 1.5, 1.75])
    a = np.tril(x) + 3 * np.eye(4, dtype=np.float32)
    b = rng.standard_normal((2, 4, 3), np.float32)
    close(ops.solve_tri(s.tensor(a), s.tensor(b)), np.linalg.solve(a, b))


def test_gradients(s: Session, rng: np.random.Generator) -> None:
    x, g = rng.standard_normal((2, 3, 4), np.float32)
    t, d = s.tensor(x), s.tensor(g)
    close(ops.silu_back(d, t), g * sigmoid(x) * (1 + x * (1 - sigmoid(x))))
    n, eps = 4, 1e-5
    rms = np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    close(ops.rms_norm_back(t, d, eps=eps), (g - x * (g * x).sum(-1, keepdims=True) / (n * rms**2)) / rms)
    e = np.exp(x - x.max(-1, keepdims=True))
    y = e / e.sum(-1, keepdims=True)
    close(ops.soft_max_back(d, s.tensor(y), scale=0.5), 0.5 * y * (g - (g * y).sum(-1, keepdims=True)))
    labels = np.eye(4, dtype=np.float32)[[1, 3, 0]]
    close(ops.cross_entropy_loss(t, s.tensor(labels)), -(labels * np.log(y)).sum() / 3)
    one = s.tensor(np.ones(1, np.float32))
    close(ops.cross_entropy_loss_back(one, t, s.tensor(labels)), (y - labels) / 3)
    ids = s.tensor(np.array([1, 1, 0], np.int32))
    want = np.zeros((2, 4), np.float32)
    np.add.at(want, [1, 1, 0], g)
    close(ops.get_rows_back(d, ids, s.tensor(np.zeros((2, 4), np.float32))), want)
    w = s.tensor(x)
    close(ops.opt_step_sgd(w, d, s.tensor(np.array([0.1, 0.01], np.float32))), x * (1 - 0.1 * 0.01) - 0.1 * g)
    w, m, v = s.tensor(x), s.tensor(np.zeros_like(x)), s.tensor(np.zeros_like(x))
    params = np.array([0.1, 0.9, 0.999, 1e-8, 0.0, 1 / (1 - 0.9), 1 / (1 - 0.999)], np.float32)
    close(ops.opt_step_adamw(w, d, m, v, s.tensor(params)), x - 0.1 * np.sign(g), atol=1e-3)
    close(m, 0.1 * g)
