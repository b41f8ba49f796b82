"""Operations against numpy: attention, rotary positions, convolutions, pictures, recurrent layers."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pyggml.tensor import DType, Session, Tensor, ops
from pyggml.tensor.ops import RopeMode, RopeParams

Array = npt.NDArray[Any]
rand = np.random.default_rng(11)


def new(*shape: int) -> Array:
    return rand.standard_normal(shape, np.float32)


def close(result: Tensor, expected: npt.ArrayLike, *, atol: float = 1e-4) -> None:
    values, want = result.numpy(), np.asarray(expected)
    assert values.size == want.size, (values.shape, want.shape)
    np.testing.assert_allclose(values.reshape(want.shape), want, rtol=1e-3, atol=atol)


# -- attention ----------------------------------------------------------------------------------------------------


def attend(q: Array, k: Array, v: Array, mask: Array, scale: float, cap: float = 0.0) -> Array:
    """``(head, token, d)`` -> ``(token, head, d)``."""
    r = q.shape[0] // k.shape[0]
    scores = np.einsum("htd,hkd->htk", q, np.repeat(k, r, 0)) * scale
    if cap:
        scores = cap * np.tanh(scores / cap)
    scores = scores + mask
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(np.einsum("htk,hkd->thd", e / e.sum(-1, keepdims=True), np.repeat(v, r, 0)))


@pytest.mark.parametrize("dtype", [DType.F32, DType.F16, DType.Q8_0])
@pytest.mark.parametrize("cap", [0.0, 2.0])
@pytest.mark.parametrize("tokens", [1, 3])
def test_flash_attention(s: Session, dtype: DType, cap: float, tokens: int) -> None:
    q, k, v = new(4, tokens, 32), new(2, 7, 32), new(2, 7, 32)
    mask = np.where(np.arange(7) < 5, 0, -np.inf).astype(np.float16) * np.ones((tokens, 1), np.float16)
    mask = np.where(np.isnan(mask), 0, mask)
    result = ops.flash_attn(
        s.tensor(q), s.tensor(k, dtype=dtype), s.tensor(v, dtype=dtype), s.tensor(mask.astype(np.float16)),
        scale=0.2, logit_softcap=cap,
    )  # fmt: skip
    close(result, attend(q, k, v, mask.astype(np.float32), 0.2, cap), atol=3e-2)


def test_flash_attention_with_sinks(s: Session) -> None:
    q, k, v, sinks = new(2, 3, 32), new(2, 7, 32), new(2, 7, 32), new(2)
    result = ops.flash_attn(s.tensor(q), s.tensor(k), s.tensor(v), None, scale=0.2)
    ops.add_sinks(result, s.tensor(sinks))
    more_k = np.concatenate([k, np.zeros((2, 1, 32), np.float32)], 1)
    more_v = np.concatenate([v, np.zeros((2, 1, 32), np.float32)], 1)
    mask = np.zeros((2, 3, 8), np.float32)
    mask[..., -1] = sinks[:, None]
    close(result, attend(q, more_k, more_v, mask, 0.2), atol=2e-2)


def rotate(
    x: Array, positions: Array, n_dims: int, *, neox: bool, base: float = 10000.0, ff: Array | None = None
) -> Array:
    """``x`` ``(token, head, d)``."""
    i = np.arange(n_dims // 2)
    angle = positions[:, None] * base ** (-2.0 * i / n_dims) / (1 if ff is None else ff)
    c, z = np.cos(angle)[:, None], np.sin(angle)[:, None]
    first, second = (i, i + n_dims // 2) if neox else (2 * i, 2 * i + 1)
    out = x.copy()
    out[..., first] = x[..., first] * c - x[..., second] * z
    out[..., second] = x[..., first] * z + x[..., second] * c
    return out


@pytest.mark.parametrize("mode", [RopeMode.NORMAL, RopeMode.NEOX])
@pytest.mark.parametrize("n_dims", [4, 8])
def test_rope(s: Session, mode: RopeMode, n_dims: int) -> None:
    x, pos = new(3, 2, 8), np.array([0, 5, 11], np.int32)
    params = RopeParams(n_dims=n_dims, mode=mode, freq_base=100.0)
    t, p = s.tensor(x), s.tensor(pos)
    want = rotate(x, pos, n_dims, neox=mode == RopeMode.NEOX, base=100.0)
    close(ops.rope(t, p, params=params), want)
    close(ops.rope_back(ops.rope(t, p, params=params), p, params=params), x)
    ff = np.array([1.0, 2.0, 4.0, 8.0], np.float32)
    close(
        ops.rope(t, p, params=params, factors=s.tensor(ff)),
        rotate(x, pos, n_dims, neox=mode == RopeMode.NEOX, base=100.0, ff=ff[: n_dims // 2]),
    )
    if n_dims == 4:
        late = x.copy()
        late[..., 2:6] = rotate(x[..., 2:6], pos, 4, neox=mode == RopeMode.NEOX, base=100.0)
        close(ops.rope(t, p, params=RopeParams(n_dims=4, mode=mode, freq_base=100.0, offset=2)), late)
    half = RopeParams(n_dims=n_dims, mode=mode, freq_base=100.0, freq_scale=0.5)
    close(ops.rope(t, p, params=half), rotate(x, pos / 2, n_dims, neox=mode == RopeMode.NEOX, base=100.0))


def test_rope_multi(s: Session) -> None:
    x = new(3, 2, 8)
    pos = np.array([[0, 1, 2], [5, 6, 7], [9, 8, 7], [0, 0, 0]], np.int32)
    params = RopeParams(n_dims=8, mode=RopeMode.MROPE, freq_base=100.0)
    sections = (2, 1, 1, 0)
    which = np.array([0, 0, 1, 2])
    angle = pos[which].T * 100.0 ** (-2.0 * np.arange(4) / 8)
    c, z = np.cos(angle)[:, None], np.sin(angle)[:, None]
    want = np.concatenate([x[..., :4] * c - x[..., 4:] * z, x[..., :4] * z + x[..., 4:] * c], -1)
    t, p = s.tensor(x), s.tensor(pos.reshape(-1))
    result = ops.rope_multi(t, p, params=params, sections=sections)
    close(result, want)
    close(ops.rope_multi_back(result, p, params=params, sections=sections), x)


# -- convolutions -------------------------------------------------------------------------------------------------


def conv2d(k: Array, x: Array, stride: int, padding: int, dilation: int = 1) -> Array:
    """``k`` ``(oc, c, kh, kw)``, ``x`` ``(n, c, h, w)``."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    kh, kw = ((n - 1) * dilation + 1 for n in k.shape[2:])
    oh, ow = (x.shape[2] - kh) // stride + 1, (x.shape[3] - kw) // stride + 1
    out = np.zeros((x.shape[0], k.shape[0], oh, ow), np.float32)
    for i in range(oh):
        for j in range(ow):
            patch = x[:, :, i * stride : i * stride + kh : dilation, j * stride : j * stride + kw : dilation]
            out[:, :, i, j] = np.einsum("nchw,ochw->no", patch, k)
    return out


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 2, 2)])
def test_conv_2d(s: Session, stride: int, padding: int, dilation: int) -> None:
    k, x = new(4, 3, 3, 2), new(2, 3, 7, 6)
    steps = {"stride": (stride,) * 2, "padding": (padding,) * 2, "dilation": (dilation,) * 2}
    want = conv2d(k, x, stride, padding, dilation)
    for dtype in (DType.F32, DType.F16):
        kernel = s.tensor(k, dtype=dtype)
        close(ops.conv_2d(kernel, s.tensor(x), **steps), want, atol=3e-2)
        close(ops.conv_2d_direct(kernel, s.tensor(x), **steps), want, atol=3e-2)
    d = new(3, 1, 3, 2)
    want = np.concatenate([conv2d(d[i : i + 1], x[:, i : i + 1], stride, padding, dilation) for i in range(3)], 1)
    close(ops.conv_2d_dw(s.tensor(d, dtype=DType.F16), s.tensor(x), **steps), want, atol=3e-2)
    close(ops.conv_2d_dw_direct(s.tensor(d), s.tensor(x), **steps), want)
    patches = ops.im2col(s.tensor(k), s.tensor(x), dtype=DType.F32, **steps)
    oh, ow = want.shape[2:]
    assert patches.ne == (2 * 3 * 3, ow, oh, 2)
    unfolded = patches.numpy() @ k.reshape(4, -1).T
    np.testing.assert_allclose(unfolded.transpose(0, 3, 1, 2), conv2d(k, x, stride, padding, dilation), atol=1e-4)
    grad = new(*patches.numpy_shape)
    back = ops.im2col_back(s.tensor(k), s.tensor(grad), shape=(6, 7, 3, 2), **steps).numpy()
    # the gradient is the transpose of unfolding
    np.testing.assert_allclose((back * x).sum(), (grad * patches.numpy()).sum(), rtol=1e-3)


def test_conv_1d(s: Session) -> None:
    k, x = new(4, 3, 3), new(3, 9)
    want = conv2d(k[:, :, None], x[None, :, None], 1, 0)[0, :, 0]
    close(ops.conv_1d(s.tensor(k), s.tensor(x)), want, atol=3e-2)
    padded = np.pad(x, ((0, 0), (1, 1)))
    close(
        ops.conv_1d(s.tensor(k), s.tensor(x), stride=2, padding=1),
        conv2d(k[:, :, None], padded[None, :, None], 2, 0)[0, :, 0],
        atol=3e-2,
    )
    d = new(3, 1, 3)
    want = np.stack([np.convolve(x[i], d[i, 0, ::-1], "valid") for i in range(3)])
    close(ops.conv_1d_dw(s.tensor(d), s.tensor(x)), want, atol=3e-2)


def test_conv_transpose(s: Session) -> None:
    k, x = new(3, 2, 4), new(3, 5)  # (c, oc, k), (c, w)
    want = np.zeros((2, 4 * 2 + 4), np.float32)
    for i in range(5):
        want[:, i * 2 : i * 2 + 4] += np.einsum("cok,c->ok", k, x[:, i])
    close(ops.conv_transpose_1d(s.tensor(k), s.tensor(x), stride=2), want)
    columns = np.einsum("cok,cw->wok", k, x).reshape(5, -1)
    close(ops.col2im_1d(s.tensor(columns.astype(np.float32)), stride=2, n_out=2), want)
    close(ops.col2im_1d(s.tensor(columns.astype(np.float32)), stride=2, n_out=2, padding=1), want[:, 1:-1])
    k2, x2 = new(3, 2, 3, 2), new(1, 3, 4, 5)  # (c, oc, kh, kw), (n, c, h, w)
    want2 = np.zeros((1, 2, 3 * 2 + 3, 4 * 2 + 2), np.float32)
    for i in range(4):
        for j in range(5):
            want2[0, :, i * 2 : i * 2 + 3, j * 2 : j * 2 + 2] += np.einsum("cohw,c->ohw", k2, x2[0, :, i, j])
    close(ops.conv_transpose_2d(s.tensor(k2), s.tensor(x2), stride=2), want2)
    close(ops.conv_transpose_2d(s.tensor(k2, dtype=DType.F16), s.tensor(x2), stride=2), want2, atol=3e-2)


def test_conv_3d(s: Session) -> None:
    c, n, oc = 2, 2, 3
    k, x = new(oc * c, 2, 3, 2), new(n * c, 4, 5, 4)
    kernel, data = k.reshape(oc, c, 2, 3, 2), x.reshape(n, c, 4, 5, 4)
    want = np.zeros((n, oc, 3, 3, 3), np.float32)
    for i in range(3):
        for j in range(3):
            for m in range(3):
                want[:, :, i, j, m] = np.einsum("ncdhw,ocdhw->no", data[:, :, i : i + 2, j : j + 3, m : m + 2], kernel)
    want = want.reshape(n * oc, 3, 3, 3)
    close(ops.conv_3d(s.tensor(k), s.tensor(x), n_channels=c), want, atol=3e-2)
    close(ops.conv_3d_direct(s.tensor(k), s.tensor(x), n_channels=c), want, atol=3e-2)
    patches = ops.im2col_3d(s.tensor(k), s.tensor(x), n_channels=c, dtype=DType.F32)
    assert patches.ne == (2 * 3 * 2 * c, 3, 3, 3 * n)


# -- pictures -----------------------------------------------------------------------------------------------------


def test_pooling(s: Session) -> None:
    x = new(2, 3, 4, 6)
    blocks = x.reshape(2, 3, 2, 2, 3, 2)
    t = s.tensor(x)
    close(ops.pool_2d(t, kind=ops.PoolKind.MAX, kernel=(2, 2)), blocks.max((3, 5)))
    close(ops.pool_2d(t, kind=ops.PoolKind.AVG, kernel=(2, 2)), blocks.mean((3, 5)))
    close(ops.pool_1d(t, kind=ops.PoolKind.MAX, kernel=3), x.reshape(2, 3, 4, 2, 3).max(-1))
    close(ops.pool_1d(t, kind=ops.PoolKind.AVG, kernel=2), x.reshape(2, 3, 4, 3, 2).mean(-1))
    grad = new(2, 3, 2, 3)
    back = ops.pool_2d_back(s.tensor(grad), t, kind=ops.PoolKind.AVG, kernel=(2, 2))
    close(back, np.repeat(np.repeat(grad, 2, 2), 2, 3) / 4)


def test_resizing_and_padding(s: Session) -> None:
    x = new(1, 2, 3, 4)
    t = s.tensor(x)
    close(ops.upscale(t, factor=2), np.repeat(np.repeat(x, 2, 2), 2, 3))
    line = np.array([[0.0, 1.0, 2.0, 3.0]], np.float32)
    wide = ops.interpolate(s.tensor(line), 7, 1, mode=ops.ScaleMode.BILINEAR, align_corners=True)
    close(wide, np.arange(7) / 2)
    assert ops.interpolate(t, 8, 6, mode=ops.ScaleMode.BICUBIC).ne == (8, 6, 2, 1)
    close(ops.pad(t, 1, 2), np.pad(x, ((0, 0), (0, 0), (0, 2), (0, 1))))
    close(ops.pad(t, 1, before=(0, 2)), np.pad(x, ((0, 0), (0, 0), (2, 0), (0, 1))))
    close(ops.pad_circular(t, 1, before=(2,)), np.pad(x, ((0, 0), (0, 0), (0, 0), (2, 1)), mode="wrap"))
    close(ops.pad_reflect_1d(t, before=2, after=1), np.pad(x, ((0, 0), (0, 0), (0, 0), (2, 1)), mode="reflect"))
    close(ops.roll(t, 1, -2), np.roll(x, (1, -2), (3, 2)))


def test_timesteps(s: Session) -> None:
    times = np.array([0.0, 1.0, 7.5], np.float32)
    freq = np.exp(-np.log(10000.0) * np.arange(4) / 4)
    angle = times[:, None] * freq
    close(ops.timestep_embedding(s.tensor(times), dim=8), np.concatenate([np.cos(angle), np.sin(angle)], -1), atol=1e-3)


def test_windows_of_sam(s: Session) -> None:
    x = new(5, 7, 3)  # (h, w, c)
    padded = np.pad(x, ((0, 1), (0, 2), (0, 0)))
    want = padded.reshape(2, 3, 3, 3, 3).transpose(0, 2, 1, 3, 4).reshape(6, 3, 3, 3)
    parts = ops.win_part(s.tensor(x), window=3)
    close(parts, want)
    close(ops.win_unpart(parts, width=7, height=5), x)
    table = new(5, 4).astype(np.float16)
    index = np.arange(3)[:, None] - np.arange(3)[None, :] + 2
    close(ops.get_rel_pos(s.tensor(table), size=3), table[index])
    a, w, h = new(2, 6, 9), new(2, 2, 3, 3), new(2, 2, 3, 3)  # (n, qh * qw, k * k), (n, qh, qw, k)
    want = a.reshape(2, 2, 3, 3, 3) + h[..., :, None] + w[..., None, :]
    close(ops.add_rel_pos(s.tensor(a), s.tensor(w), s.tensor(h)), want.reshape(a.shape))


# -- recurrent ----------------------------------------------------------------------------------------------------


def test_ssm_conv(s: Session) -> None:
    x, k = new(2, 3, 4 - 1 + 5), new(3, 4)
    want = np.stack([[np.convolve(x[i, j], k[j, ::-1], "valid") for j in range(3)] for i in range(2)])
    close(ops.ssm_conv(s.tensor(x), s.tensor(k)), want.transpose(0, 2, 1))


@pytest.mark.parametrize("mamba1", [False, True])
def test_ssm_scan(s: Session, mamba1: bool) -> None:
    n_state, head, n_head, groups, tokens, seqs = 16, 4, 2, 1, 3, 2
    state = new(3, n_head, head, n_state)
    x, dt = new(seqs, tokens, n_head, head), new(seqs, tokens, n_head)
    a = -np.abs(new(n_head, n_state if mamba1 else 1))
    b, c = new(seqs, tokens, groups, n_state), new(seqs, tokens, groups, n_state)
    ids = np.array([2, 0], np.int32)
    y = np.zeros_like(x)
    last = np.zeros((seqs, n_head, head, n_state), np.float32)
    for i in range(seqs):
        h = state[ids[i]].copy()
        for t in range(tokens):
            d = np.log1p(np.exp(dt[i, t]))[:, None, None]
            h = h * np.exp(d * a[:, None, :]) + d * x[i, t][..., None] * b[i, t, 0]
            y[i, t] = h @ c[i, t, 0]
        last[i] = h
    operands = [s.tensor(v) for v in (state, x, dt, a, b, c, ids)]
    close(ops.ssm_scan(*operands), np.concatenate([y.ravel(), last.ravel()]), atol=1e-3)


def test_rwkv6(s: Session) -> None:
    size, heads, tokens, seqs = 8, 2, 4, 2
    k, v, r, decay = (new(tokens, heads, size) * 0.5 for _ in range(4))
    decay = np.exp(-np.exp(decay)).astype(np.float32)
    first, state = new(heads, size), new(seqs, heads, size, size)
    y, h = np.zeros_like(k), state.copy()
    for t in range(tokens):
        q = t // (tokens // seqs)
        for j in range(heads):
            kv = np.outer(k[t, j], v[t, j])
            y[t, j] = r[t, j] @ (h[q, j] + first[j][:, None] * kv)
            h[q, j] = h[q, j] * decay[t, j][:, None] + kv
    operands = [s.tensor(z) for z in (k, v, r, first, decay)]
    result = ops.rwkv_wkv6(*operands, s.tensor(state.reshape(seqs, -1)))
    close(result, np.concatenate([y.ravel(), h.ravel()]), atol=1e-3)


def test_rwkv7(s: Session) -> None:
    size, heads, tokens, seqs = 64, 2, 4, 2
    r, w, k, v, a, b = (new(tokens, heads, size) * 0.2 for _ in range(6))
    w = np.exp(-np.exp(w)).astype(np.float32)
    state = new(seqs, heads, size, size)  # rows belong to values
    y, h = np.zeros_like(k), state.copy()
    for t in range(tokens):
        q = t // (tokens // seqs)
        for j in range(heads):
            sa = h[q, j] @ a[t, j]
            h[q, j] = h[q, j] * w[t, j] + np.outer(sa, b[t, j]) + np.outer(v[t, j], k[t, j])
            y[t, j] = h[q, j] @ r[t, j]
    result = ops.rwkv_wkv7(*[s.tensor(z) for z in (r, w, k, v, a, b)], s.tensor(state.reshape(seqs, -1)))
    close(result, np.concatenate([y.ravel(), h.ravel()]), atol=1e-3)


def test_gated_linear_attention(s: Session) -> None:
    size, heads, tokens, seqs = 8, 2, 4, 2
    k, v, q, g = (new(tokens, heads, size) * 0.5 for _ in range(4))
    g = sigmoid(g)
    state = new(seqs, heads, size, size)
    y, h = np.zeros_like(k), state.copy()
    for t in range(tokens):
        n = t // (tokens // seqs)
        for j in range(heads):
            h[n, j] = h[n, j] * g[t, j][:, None] + np.outer(k[t, j], v[t, j])
            y[t, j] = 0.3 * q[t, j] @ h[n, j]
    result = ops.gated_linear_attn(*[s.tensor(z) for z in (k, v, q, g)], s.tensor(state.reshape(seqs, -1)), scale=0.3)
    close(result, np.concatenate([y.ravel(), h.ravel()]), atol=1e-3)


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)), np.float32)


@pytest.mark.parametrize("per_channel", [False, True])
def test_gated_delta_net(s: Session, per_channel: bool) -> None:
    size, heads, key_heads, tokens, seqs = 8, 4, 2, 3, 2
    q, k = new(seqs, tokens, key_heads, size), new(seqs, tokens, key_heads, size)
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    v = new(seqs, tokens, heads, size)
    g = -np.abs(new(seqs, tokens, heads, size if per_channel else 1))
    beta = sigmoid(new(seqs, tokens, heads, 1))
    state = new(seqs, heads, size, size)  # rows belong to values
    y, h = np.zeros_like(v), state.copy()
    for i in range(seqs):
        for t in range(tokens):
            for j in range(heads):
                key = k[i, t, j % key_heads]
                h[i, j] *= np.exp(g[i, t, j])
                delta = (v[i, t, j] - h[i, j] @ key) * beta[i, t, j]
                h[i, j] += np.outer(delta, key)
                y[i, t, j] = h[i, j] @ q[i, t, j % key_heads] / np.sqrt(size)
    result = ops.gated_delta_net(*[s.tensor(z) for z in (q, k, v, g, beta, state)])
    close(result, np.concatenate([y.ravel(), h.ravel()]), atol=1e-3)


# -- deepseek -----------------------------------------------------------------------------------------------------


def test_lightning_indexer(s: Session) -> None:
    q, k, w = new(1, 3, 4, 32), new(1, 5, 1, 32), new(1, 1, 3, 4)
    mask = np.where(rand.random((1, 1, 3, 5)) < 0.2, -np.inf, 0).astype(np.float16)
    want = np.einsum("th,thk->tk", w[0, 0], np.maximum(np.einsum("thd,kd->thk", q[0], k[0, :, 0]), 0)) + mask[0, 0]
    result = ops.lightning_indexer(s.tensor(q), s.tensor(k), s.tensor(w), s.tensor(mask))
    close(result, want)


def test_hyper_connections(s: Session) -> None:
    d, hc, n = 6, 4, 3
    x, weights = new(n, hc, d), new(n, hc)
    close(ops.dsv4_hc_pre(s.tensor(x), s.tensor(weights)), np.einsum("nhd,nh->nd", x, weights))
    y, post, comb = new(n, d), new(n, hc), new(n, hc, hc)  # comb: (token, from, to)
    want = np.einsum("nd,nh->nhd", y, post) + np.einsum("nsd,nst->ntd", x, comb)
    close(ops.dsv4_hc_post(s.tensor(y), s.tensor(x), s.tensor(post), s.tensor(comb)), want)
    close(ops.dsv4_hc_post(s.tensor(y), s.tensor(x), s.tensor(post), None), np.einsum("nd,nh->nhd", y, post) + x)
    gate = new(n, hc, d)
    close(ops.dsv4_hc_pre_gated(s.tensor(x), s.tensor(gate), scale=0.5), 0.5 * (x * sigmoid(gate)).sum(1))
    mixes, scale, base = new(n, 24), new(3), new(24)
    logits = (mixes[:, 8:] * scale[2] + base[8:]).reshape(n, hc, hc)  # (token, from, to)
    e = np.exp(logits - logits.max(-1, keepdims=True))
    m = e / e.sum(-1, keepdims=True) + 1e-6
    m = m / (m.sum(-2, keepdims=True) + 1e-6)
    for _ in range(4):
        m = m / (m.sum(-1, keepdims=True) + 1e-6)
        m = m / (m.sum(-2, keepdims=True) + 1e-6)
    close(ops.dsv4_hc_comb(s.tensor(mixes), s.tensor(scale), s.tensor(base), eps=1e-6, n_iter=5), m)
