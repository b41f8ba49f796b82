"""Runs in a process of its own: wrong calls by hand. Each must raise an error of ours; the process must live."""

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from pyggml.errors import ClosedError, PyggmlError, ShapeError
from pyggml.tensor import Arena, Backend, Buffer, Device, DType, Executor, Graph, Session, Tensor, find_device, ops
from pyggml.tensor.ops import RopeMode, RopeParams

F32, F16, I32, Q4, Q8 = DType.F32, DType.F16, DType.I32, DType.Q4_0, DType.Q8_0
Call = Callable[[], Any]


def shapes_named(message: str, *tensors: Tensor) -> bool:
    return all(str(list(t.ne)) in message for t in tensors)


def wrong_operations(s: Session) -> dict[str, tuple[Call, tuple[Tensor, ...]]]:
    """What to call, and the operands whose shapes the message must hold."""

    def new(*shape: int, dtype: DType = F32) -> Tensor:
        return s.empty(dtype, *shape)

    a, b, c = new(8, 3), new(7, 3), new(8, 3, 2)
    q, k, v = new(32, 3, 4), new(32, 6, 2), new(32, 6, 2)
    w, x = new(32, 5, dtype=Q4), new(64, 2)
    e, ids = new(32, 4, 3, dtype=Q4), new(2, 5, dtype=I32)
    rows, where = new(4, 3), new(2, dtype=I32)
    neox = RopeParams(n_dims=8, mode=RopeMode.NEOX)
    multi = RopeParams(n_dims=8, mode=RopeMode.MROPE)
    none: tuple[Tensor, ...] = ()
    pairs = {op: (getattr(ops, op), a, b) for op in ("add", "sub", "mul", "div", "silu_back", "soft_max_back")}
    pairs |= {op: (getattr(ops, op), a, b) for op in ("swiglu_split", "geglu_split", "cross_entropy_loss")}
    pairs |= {
        "mul_mat inner": (ops.mul_mat, w, x),
        "mul_mat outer": (ops.mul_mat, new(8, 3, 2), new(8, 3, 3)),
        "mul_mat of transposed weights": (ops.mul_mat, a.T, new(3, 4)),
        "mul_mat by a transposed tensor": (ops.mul_mat, new(3, 4), a.T),
        "matmul": (ops.matmul, a, b),
        "matmul operator": (lambda y, z: y @ z, a, b),
        "add operator": (lambda y, z: y + z, a, b),
        "mul operator": (lambda y, z: y * z, a, b),
        "div operator": (lambda y, z: y / z, a, b),
        "out_prod": (ops.out_prod, a, new(8, 4)),
        "get_rows": (ops.get_rows, c, where),
        "cpy": (ops.cpy, a, b),
        "repeat_back": (ops.repeat_back, a, b),
        "solve_tri not square": (ops.solve_tri, a, b),
        "solve_tri": (ops.solve_tri, new(3, 3), a.reshape(8, 3)[:2]),
        "ssm_conv": (ops.ssm_conv, new(8, 3, 2), new(4, 2)),
        "conv_1d": (ops.conv_1d, new(3, 2, 4), new(9, 3)),
        "conv_1d_dw": (ops.conv_1d_dw, new(3, 1, 2), new(9, 3)),
        "conv_2d": (ops.conv_2d, new(3, 3, 2, 4), new(8, 8, 3)),
        "conv_2d_direct": (ops.conv_2d_direct, new(3, 3, 2, 4), new(8, 8, 3)),
        "conv_2d_dw_direct": (ops.conv_2d_dw_direct, new(3, 3, 1, 2), new(8, 8, 3)),
        "conv_transpose_1d": (ops.conv_transpose_1d, new(3, 4, 2), new(9, 3)),
        "conv_transpose_2d": (ops.conv_transpose_2d, new(3, 3, 4, 2), new(9, 9, 3)),
        "im2col": (ops.im2col, new(3, 3, 2, 4), new(8, 8, 3)),
        "dsv4_hc_pre": (ops.dsv4_hc_pre, new(6, 4, 3), new(4, 2)),
        "count_equal": (ops.count_equal, new(4, dtype=I32), new(5, dtype=I32)),
    }
    calls: dict[str, tuple[Call, tuple[Tensor, ...]]] = {
        name: ((lambda f=f, y=y, z=z: f(y, z)), (y, z)) for name, (f, y, z) in pairs.items()
    }
    calls |= {
        "mul_mat_id": (lambda: ops.mul_mat_id(e, new(32, 1, 4), ids), (e, ids)),
        "mul_mat_id 4d experts": (lambda: ops.mul_mat_id(new(32, 4, 3, 2), new(32, 1, 5), ids), (ids,)),
        "add_id": (lambda: ops.add_id(new(4, 2, 3), new(4, 5), ids), (ids,)),
        "set_rows": (lambda: ops.set_rows(rows, new(4, 3), where), (rows, where)),
        "set_rows width": (lambda: ops.set_rows(rows, new(5, 2), where), (rows, where)),
        "flash_attn head": (lambda: ops.flash_attn(q, new(16, 6, 2), v, None, scale=1.0), (q, v)),
        "flash_attn kv": (lambda: ops.flash_attn(q, k, new(32, 5, 2), None, scale=1.0), (q, k)),
        "flash_attn heads": (lambda: ops.flash_attn(q, new(32, 6, 3), new(32, 6, 3), None, scale=1.0), (q,)),
        "flash_attn mask": (lambda: ops.flash_attn(q, k, v, new(5, 3, dtype=F16), scale=1.0), (q, k)),
        "flash_attn short mask": (lambda: ops.flash_attn(q, k, v, new(6, 2, dtype=F16), scale=1.0), (q, k)),
        "soft_max mask": (lambda: ops.soft_max(c, new(7, 3)), (c,)),
        "soft_max short mask": (lambda: ops.soft_max(c, new(8, 2)), (c,)),
        "soft_max mask heads": (lambda: ops.soft_max(new(8, 3, 3), new(8, 3, 2)), none),
        "sinks": (lambda: ops.add_sinks(ops.soft_max(c), new(3)), (c,)),
        "rope positions": (lambda: ops.rope(new(8, 2, 3), new(4, dtype=I32), params=neox), none),
        "rope factors": (lambda: ops.rope(new(8, 2, 3), new(3, dtype=I32), params=neox, factors=new(3)), none),
        "rope odd head": (lambda: ops.rope(new(9, 2, 3), new(3, dtype=I32), params=neox), none),
        "rope_multi positions": (
            lambda: ops.rope_multi(new(8, 2, 3), new(3, dtype=I32), params=multi, sections=(2, 1, 1, 0)),
            none,
        ),
        "concat": (lambda: ops.concat(a, b, dim=1), (a, b)),
        "concat 2": (lambda: ops.concat(a, c, dim=0), (a, c)),
        "acc outside": (lambda: ops.acc(a, new(8, 2), offset=64), (a,)),
        "set outside": (lambda: ops.set_region(a, new(8, 2), offset=64), (a,)),
        "set larger": (lambda: ops.set_region(a, c), (a, c)),
        "reshape": (lambda: a.reshape(5, 5), (a,)),
        "reshape -1": (lambda: a.reshape(5, -1), (a,)),
        "repeat_to": (lambda: ops.repeat_to(a, 8, 4), (a,)),
        "kernel too large": (lambda: ops.conv_1d(new(9, 2, 4), new(3, 2)), none),
        "window too large": (lambda: ops.pool_1d(a, kind=ops.PoolKind.MAX, kernel=9), none),
        "group_norm": (lambda: ops.group_norm(c, n_groups=3, eps=1e-5), (c,)),
        "diag": (lambda: ops.diag(a), (a,)),
        "tri": (lambda: ops.tri(a, kind=ops.TriType.LOWER), (a,)),
        "argmax": (lambda: ops.argmax(c), (c,)),
        "odd gate": (lambda: ops.swiglu(b), (b,)),
        "win_unpart": (lambda: ops.win_unpart(new(4, 3, 3, 5), width=7, height=5), none),
        "get_rel_pos": (lambda: ops.get_rel_pos(new(4, 4, dtype=F16), size=3), none),
        "add_rel_pos": (lambda: ops.add_rel_pos(new(9, 8, 2), new(3, 4, 2, 1), new(3, 4, 2, 1)), none),
        "wkv6": (lambda: ops.rwkv_wkv6(*[new(8, 2, 4)] * 3, new(15), new(8, 2, 4), new(128, 2)), none),
        "wkv7 head": (lambda: ops.rwkv_wkv7(*[new(8, 2, 4)] * 6, new(128, 2)), none),
        "gla state": (lambda: ops.gated_linear_attn(*[new(8, 2, 4)] * 4, new(127, 2), scale=1.0), none),
        "ssm_scan": (
            lambda: ops.ssm_scan(
                new(16, 4, 2, 3), new(4, 2, 3, 2), new(2, 3, 1), new(1, 2), *[new(16, 1, 3, 2)] * 2, new(2, dtype=I32)
            ),
            none,
        ),
        "gated_delta_net": (
            lambda: ops.gated_delta_net(
                *[new(8, 3, 3, 2)] * 2, new(8, 4, 3, 2), new(1, 4, 3, 2), new(1, 4, 3, 2), new(8, 8, 4, 2)
            ),
            none,
        ),
        "indexer": (lambda: ops.lightning_indexer(new(32, 3, 4), new(32, 2, 5), new(3, 4), new(5, 4, dtype=F16)), none),
        "hc_comb": (lambda: ops.dsv4_hc_comb(new(23, 3), new(3), new(24), eps=1e-6, n_iter=2), none),
        "adamw": (lambda: ops.opt_step_adamw(a, a, a, a, new(6)), (a,)),
        "sgd": (lambda: ops.opt_step_sgd(a, b, new(2)), (a, b)),
        "no rows to take": (lambda: ops.get_rows(new(4, 0), where).numpy(), none),
    }
    return calls


def wrong_types_and_numbers(s: Session) -> dict[str, Call]:
    def new(*shape: int, dtype: DType = F32) -> Tensor:
        return s.empty(dtype, *shape)

    a, half, ints = new(8, 4), new(8, 4, dtype=F16), new(8, 4, dtype=I32)
    q8, q4 = new(32, 4, dtype=Q8), new(32, 4, dtype=Q4)
    heads, pos = new(8, 2, 3), new(3, dtype=I32)
    calls: dict[str, Call] = {}
    for op in ("neg", "silu", "gelu", "exp", "sqr", "log", "sum", "sum_rows", "mean", "argmax", "argsort", "soft_max"):
        calls[f"{op} of I32"] = lambda op=op: getattr(ops, op)(ints)
        calls[f"{op} of Q8"] = lambda op=op: getattr(ops, op)(q8)
        calls[f"{op} of a transpose"] = lambda op=op: getattr(ops, op)(a.T)
    for op in ("norm", "rms_norm", "l2_norm"):
        calls[f"{op} of F16"] = lambda op=op: getattr(ops, op)(half, eps=1e-5)
        calls[f"{op} of a transpose"] = lambda op=op: getattr(ops, op)(a.T, eps=1e-5)
        for eps in (math.nan, -1.0, math.inf):
            calls[f"{op} eps {eps}"] = lambda op=op, eps=eps: getattr(ops, op)(a, eps=eps)
    for kind in (DType.I8, DType.I16, DType.I64, DType.F64, DType.Q8_1, DType.Q8_K):
        other = new(256, 2, dtype=kind)
        calls[f"mul_mat {kind.name}"] = lambda t=other: ops.mul_mat(t, new(256, 2))
        calls[f"get_rows {kind.name}"] = lambda t=other: ops.get_rows(t, new(2, dtype=I32))
        if kind not in (DType.Q8_1, DType.Q8_K):  # which can be written, but not read
            calls[f"set_rows {kind.name}"] = lambda t=other: ops.set_rows(t, new(256, 1), new(1, dtype=I32))
        calls[f"neg {kind.name}"] = lambda t=other: ops.neg(t)
        calls[f"add {kind.name}"] = lambda t=other: ops.add(t, new(256, 2))
    for kind in (DType.IQ1_S, DType.IQ2_XXS, DType.IQ2_XS):
        other = new(256, 2, dtype=kind)
        calls[f"write {kind.name}"] = lambda t=other: ops.set_rows(t, new(256, 1), new(1, dtype=I32))
        calls[f"cast to {kind.name}"] = lambda k=kind: ops.cast(new(256, 2), dtype=k)
        calls[f"set {kind.name} without importance"] = lambda k=kind: s.tensor(np.zeros((2, 256)), dtype=k)
    calls |= {
        "add F32 and F16": lambda: ops.add(a, half),
        "add F16 and BF16": lambda: ops.add(half, new(8, 4, dtype=DType.BF16)),
        "add quantized broadcast": lambda: ops.add(q8, new(32, 1)),
        "mul quantized": lambda: ops.mul(q8, new(32, 4)),
        "mul_mat F32 and F16": lambda: ops.mul_mat(a, half),
        "mul_mat Q4 and F16": lambda: ops.mul_mat(q4, new(32, 4, dtype=F16)),
        "mul_mat Q4 and Q4": lambda: ops.mul_mat(q4, q4),
        "mul_mat prec": lambda: ops.mul_mat(a, a, prec=5),
        "mul_mat_id F16": lambda: ops.mul_mat_id(q4, new(32, 1, 2, dtype=F16), new(1, 2, dtype=I32)),
        "mul_mat_id float ids": lambda: ops.mul_mat_id(q4, new(32, 1, 2), new(1, 2)),
        "get_rows float ids": lambda: ops.get_rows(a, new(2)),
        "get_rows I64 ids": lambda: ops.get_rows(a, new(2, dtype=DType.I64)),
        "set_rows I32 rows": lambda: ops.set_rows(a, new(8, 2, dtype=I32), new(2, dtype=I32)),
        "set_rows strided": lambda: ops.set_rows(a.T, new(4, 2), new(2, dtype=I32)),
        "cast Q8 to Q4": lambda: ops.cast(q8, dtype=Q4),
        "cast Q8 to F16": lambda: ops.cast(q8, dtype=F16),
        "cast I32 to F16": lambda: ops.cast(ints, dtype=F16),
        "cast F32 to I64": lambda: ops.cast(a, dtype=DType.I64),
        "cast rows of 8 to Q8": lambda: ops.cast(a, dtype=Q8),
        "cast a transpose to Q8": lambda: ops.cast(new(4, 32).T, dtype=Q8),
        "cpy to a quantized view": lambda: ops.cpy(new(32, 2, 2), new(32, 4, 2, dtype=Q8)[:, :2]),
        "transpose of Q8": lambda: ops.transpose(q8),
        "neg of a quantized .T": lambda: ops.neg(q8.T),
        "permute of Q8": lambda: ops.permute(q8, 1, 0),
        "permute twice the same": lambda: ops.permute(a, 1, 1),
        "permute 5": lambda: ops.permute(a, 0, 1, 2, 3, 4),
        "permute -1": lambda: ops.permute(a, -1, 0),
        "reshape strided": lambda: ops.reshape(a.T, 32),
        "reshape splits blocks": lambda: ops.reshape(q8, 16, 8),
        "reshape 5 dimensions": lambda: ops.reshape(a, 2, 2, 2, 2, 2),
        "reshape negative": lambda: ops.reshape(a, -8, -4),
        "reshape two unknown": lambda: ops.reshape(a, -1, -1),
        "view outside": lambda: ops.view(a, (8, 4), offset=4),
        "view negative offset": lambda: ops.view(a, (8,), offset=-4),
        "view negative stride": lambda: ops.view(a, (8, 2), strides=(-32,)),
        "view overlapping": lambda: ops.view(a, (8, 1000), strides=(0,)),
        "view of part of a block": lambda: ops.view(q8, (16,)),
        "view of nothing": lambda: ops.view(a, ()),
        "slice with a step": lambda: a[::2],
        "slice backwards": lambda: a[::-1],
        "index out of range": lambda: a[4],
        "index too negative": lambda: a[-5],
        "too many indices": lambda: a[0, 0, 0],
        "two ellipses": lambda: a[..., ...],
        "index array": lambda: a[np.array([1])],
        "index float": lambda: a[1.0],
        "index None": lambda: a[None],
        "slice of a block": lambda: q8[:, :16],
        "concat types": lambda: ops.concat(a, half, dim=0),
        "concat dim 4": lambda: ops.concat(a, a, dim=4),
        "concat dim -1": lambda: ops.concat(a, a, dim=-1),
        "repeat Q8": lambda: ops.repeat_to(q8, 64, 4),
        "repeat huge": lambda: ops.repeat_to(a, 1 << 40, 1 << 20),
        "scale F16": lambda: ops.scale(half, factor=2.0),
        "scale strided": lambda: ops.scale(a.T, factor=2.0),
        "scale NaN": lambda: ops.scale(a, factor=math.nan),
        "divide by 0": lambda: a / 0,
        "add a string": lambda: a + "1",
        "add an array": lambda: a + np.ones((4, 8)),
        "add an array, left": lambda: np.ones((4, 8)) + a,
        "matmul an array": lambda: a @ np.ones((8, 4)),
        "truth value": lambda: bool(a),
        "item": lambda: a.item(),
        "clamp upside down": lambda: ops.clamp(a, low=1.0, high=-1.0),
        "clamp NaN": lambda: ops.clamp(a, low=math.nan, high=1.0),
        "clamp I32": lambda: ops.clamp(ints, low=0, high=1),
        "fill NaN": lambda: ops.fill(a, value=math.nan),
        "fill I32": lambda: ops.fill(ints, value=1.0),
        "arange backwards": lambda: ops.arange(a, start=3.0, stop=1.0),
        "arange step 0": lambda: ops.arange(a, start=0.0, stop=1.0, step=0.0),
        "arange step -1": lambda: ops.arange(a, start=0.0, stop=1.0, step=-1.0),
        "arange endless": lambda: ops.arange(a, start=0.0, stop=math.inf),
        "arange too long": lambda: ops.arange(a, start=0.0, stop=1e30, step=1e-30),
        "top_k of too many": lambda: ops.top_k(a, k=9),
        "top_k 0": lambda: ops.top_k(a, k=0),
        "top_k -1": lambda: ops.argsort_top_k(a, k=-1),
        "sort order": lambda: ops.argsort(a, order=2),
        "pool kind": lambda: ops.pool_1d(a, kind=2, kernel=2),
        "pool stride 0": lambda: ops.pool_1d(a, kind=ops.PoolKind.MAX, kernel=2, stride=0),
        "pool kernel 0": lambda: ops.pool_2d(a, kind=ops.PoolKind.MAX, kernel=(0, 1)),
        "pool padding -1": lambda: ops.pool_1d(a, kind=ops.PoolKind.MAX, kernel=2, padding=-1),
        "upscale 1": lambda: ops.upscale(a, factor=1),
        "upscale mode": lambda: ops.upscale(a, factor=2, mode=7),
        "interpolate to 0": lambda: ops.interpolate(a, 0, 4),
        "interpolate antialias": lambda: ops.interpolate(a, 4, 4, mode=ops.ScaleMode.NEAREST, antialias=True),
        "pad -1": lambda: ops.pad(a, -1),
        "pad 5": lambda: ops.pad(a, 1, 1, 1, 1, 1),
        "pad_circular too far": lambda: ops.pad_circular(a, 9),
        "pad_reflect too far": lambda: ops.pad_reflect_1d(a, before=8, after=0),
        "roll too far": lambda: ops.roll(a, 8),
        "group_norm 0": lambda: ops.group_norm(new(4, 4, 4), n_groups=0, eps=1e-5),
        "conv stride 0": lambda: ops.conv_1d(new(3, 2, 4), new(9, 2), stride=0),
        "conv dilation 0": lambda: ops.conv_1d(new(3, 2, 4), new(9, 2), dilation=0),
        "conv padding -1": lambda: ops.conv_2d(new(3, 3, 2, 4), new(9, 9, 2), padding=(-1, 0)),
        "conv BF16": lambda: ops.conv_1d(new(3, 2, 4, dtype=DType.BF16), new(9, 2)),
        "conv_2d_dw F32": lambda: ops.conv_2d_dw(new(3, 3, 1, 2), new(9, 9, 2)),
        "im2col to Q8": lambda: ops.im2col(new(3, 3, 2, 4), new(9, 9, 2), dtype=Q8),
        "flash_attn F16 query": lambda: ops.flash_attn(new(32, 3, 4, dtype=F16), *[new(32, 6, 2)] * 2, None, scale=1.0),
        "flash_attn F32 mask": lambda: ops.flash_attn(new(32, 3, 4), *[new(32, 6, 2)] * 2, new(6, 3), scale=1.0),
        "flash_attn bias": lambda: ops.flash_attn(new(32, 3, 4), *[new(32, 6, 2)] * 2, None, scale=1.0, max_bias=8.0),
        "flash_attn NaN": lambda: ops.flash_attn(new(32, 3, 4), *[new(32, 6, 2)] * 2, None, scale=math.nan),
        "flash_attn prec": lambda: ops.flash_attn(new(32, 3, 4), *[new(32, 6, 2)] * 2, None, scale=1.0, prec=3),
        "flash_attn I32 keys": lambda: ops.flash_attn(new(32, 3, 4), *[new(32, 6, 2, dtype=I32)] * 2, None, scale=1.0),
        "soft_max bias": lambda: ops.soft_max(a, max_bias=8.0),
        "soft_max I32 mask": lambda: ops.soft_max(a, ints),
        "sinks of a sum": lambda: ops.add_sinks(a + a, new(4)),
        "sinks twice": lambda: ops.add_sinks(ops.add_sinks(ops.soft_max(new(4, 4, 4)), new(4)), new(4)),
        "rope odd": lambda: RopeParams(n_dims=7),
        "rope 0": lambda: RopeParams(n_dims=0),
        "rope base": lambda: RopeParams(n_dims=8, freq_base=0.0),
        "rope NaN": lambda: RopeParams(n_dims=8, freq_scale=math.nan),
        "rope mode": lambda: RopeParams(n_dims=8, mode=1),
        "rope too wide": lambda: ops.rope(heads, pos, params=RopeParams(n_dims=10)),
        "rope I32": lambda: ops.rope(new(8, 2, 3, dtype=I32), pos, params=RopeParams(n_dims=8)),
        "rope float positions": lambda: ops.rope(heads, new(3), params=RopeParams(n_dims=8)),
        "rope with sections": lambda: ops.rope(heads, pos, params=RopeParams(n_dims=8, mode=RopeMode.MROPE)),
        "rope_multi NEOX": lambda: ops.rope_multi(heads, pos, params=RopeParams(n_dims=8), sections=(1, 1, 1, 1)),
        "acc offset": lambda: ops.acc(a, new(2), offset=-4),
        "acc crooked": lambda: ops.acc(a, new(2), offset=3),
        "acc F16": lambda: ops.acc(half, half),
        "set types": lambda: ops.set_region(a, ints),
        "adamw of a result": lambda: ops.opt_step_adamw(a + a, a, a, a, new(7)),
        "set wrong shape": lambda: a.set(np.zeros((8, 4))),
        "set wrong size": lambda: a.set(np.zeros(31)),
        "set text": lambda: a.set([["a"] * 8] * 4),
        "set ragged": lambda: a.set([[1.0], [2.0, 3.0]]),
        "set complex": lambda: a.set(np.zeros((4, 8), complex)),
        "set strided": lambda: a.T.set(np.zeros((8, 4))),
        "set a result": lambda: (a + a).set(np.zeros((4, 8))),
        "set_bytes too many": lambda: a.set_bytes(b"x" * 129),
        "set_bytes beyond": lambda: a.set_bytes(b"x", offset=128),
        "set_bytes before": lambda: a.set_bytes(b"x", offset=-1),
        "set_bytes of a number": lambda: a.set_bytes(5),
        "bytes beyond": lambda: a.bytes(offset=64, size=65),
        "bytes negative": lambda: a.bytes(offset=-1),
        "rows beyond": lambda: a.rows(2, 5),
        "rows backwards": lambda: a.rows(3, 2),
        "rows strided": lambda: a.T.rows(0, 1),
        "tensor of 5 dimensions": lambda: s.tensor(np.zeros((1, 1, 1, 1, 1), np.float32)),
        "tensor of text": lambda: s.tensor(["a"]),
        "tensor of complex": lambda: s.tensor(np.zeros(3, complex)),
        "tensor of bool": lambda: s.tensor(np.zeros(3, bool)),
        "tensor of 33 to Q8": lambda: s.tensor(np.zeros(33), dtype=Q8),
        "tensor to Q8_K": lambda: s.tensor(np.zeros(256), dtype=DType.Q8_K),
        "empty without shape": lambda: s.empty(F32),
        "empty of -1": lambda: s.empty(F32, -1),
        "empty of 2^62": lambda: s.empty(F32, 1 << 62),
        "empty too large": lambda: s.empty(F32, 1 << 30, 1 << 30, 1 << 30),
        "index -1": lambda: ops.get_rows(a, s.tensor([-1])).numpy(),
        "index 4": lambda: ops.get_rows(a, s.tensor([4])).numpy(),
        "row 4": lambda: ops.set_rows(a, new(8, 1), s.tensor([4])).numpy(),
        "row -1": lambda: ops.set_rows(a, new(8, 1), s.tensor(np.array([-1]))).numpy(),
        "expert 9": lambda: ops.mul_mat_id(q4, new(32, 1, 1), s.tensor([[9]])).numpy(),
        "bias 9": lambda: ops.add_id(new(8, 1, 1), a, s.tensor([[9]])).numpy(),
        "sorting NaN": lambda: ops.argsort(s.tensor([1.0, math.nan])).numpy(),
        "limit below 0": lambda: ops.swiglu_clamp(a, a, limit=-1.0),
        "rope offset": lambda: ops.rope(heads, pos, params=RopeParams(n_dims=8, offset=2)),
        "rope offset odd": lambda: ops.rope(heads, pos, params=RopeParams(n_dims=4, offset=1)),
        "computed index": lambda: ops.get_rows(a, ops.cast(s.tensor([1e9]), dtype=I32)).numpy(),
        "no such device": lambda: Session("nowhere"),
        "no threads": lambda: Session("CPU", n_threads=0),
        "too many threads": lambda: Session("CPU", n_threads=10**6),
        "poll 101": lambda: Backend(find_device("CPU"), poll=101),
        "no back ends": lambda: Executor([]),
    }
    return calls


def wrong_owners(s: Session) -> dict[str, Call]:
    """Things used after they were closed, or without what they need."""
    cpu: Device = find_device("CPU")
    x = s.tensor([1.0, 2.0])
    calls: dict[str, Call] = {}

    closed = Arena()
    gone = closed.new_tensor(F32, (4,))
    closed.close()
    for name in ("name", "ne", "nb", "dtype", "shape", "op", "n_bytes", "is_contiguous", "is_allocated", "buffer_name"):
        calls[f"closed arena: {name}"] = lambda name=name: getattr(gone, name)
    for op in ("neg", "sum", "cont", "transpose"):
        calls[f"closed arena: {op}"] = lambda op=op: getattr(ops, op)(gone)
    calls |= {
        "closed arena: numpy": gone.numpy,
        "closed arena: set": lambda: gone.set([1, 2, 3, 4]),
        "closed arena: add": lambda: ops.add(x, gone),
        "closed arena: new tensor": lambda: closed.new_tensor(F32, (4,)),
    }

    weights = Arena(static=True)
    w = weights.new_tensor(F32, (4, 2))
    weights.allocate(cpu.buffer_type, "weights")
    calls["only weights"] = lambda: ops.add(w, w)
    backend = Backend(cpu, n_threads=1)
    executor = Executor([backend])
    graph = Graph()
    i = graph.input(F32, 4)
    y = graph.output(ops.mul_mat(w, i))
    calls |= {
        "not allocated": lambda: executor.compute(graph),
        "value before": y.numpy,
        "set before": lambda: i.set([1.0, 2.0, 3.0, 4.0]),
        "no such name": lambda: graph.find("nowhere"),
    }
    for name, call in calls.items():
        expect(name, call)
    calls.clear()

    executor.allocate(graph)
    w.set(np.ones((2, 4)))
    i.set([1.0, 2.0, 3.0, 4.0])
    executor.compute(graph)
    assert y.numpy().tolist() == [10, 10]
    larger = Graph()
    larger.output(ops.neg(larger.input(F32, 1 << 20)))
    executor.allocate(larger)
    expect("memory moved: compute", lambda: executor.compute(graph))
    expect("memory moved: value", y.numpy)
    executor.allocate(graph)
    i.set([0.0, 0.0, 0.0, 1.0])
    executor.compute(graph)
    assert y.numpy().tolist() == [1, 1]
    backend.close()
    expect("closed back end: compute", lambda: executor.compute(graph), ClosedError)
    expect("closed back end: allocate", lambda: executor.allocate(graph), ClosedError)
    expect("closed back end: executor", lambda: Executor([backend]), ClosedError)
    expect("closed back end: value", y.numpy)
    executor.close()
    with Backend(cpu, n_threads=1) as other, Executor([other]) as second:
        second.allocate(graph)
        weights.close()
        expect("closed weights: compute", lambda: second.compute(graph), ClosedError)
        expect("closed weights: value", y.numpy, ClosedError)
        expect("closed weights: graph", lambda: graph.add(y), ClosedError)
        graph.close()
        expect("closed graph: compute", lambda: second.compute(graph), ClosedError)
        expect("closed graph: nodes", graph.nodes, ClosedError)
        expect("closed graph: input", lambda: graph.input(F32, 4), ClosedError)
        second.close()
        expect("closed executor: compute", lambda: second.compute(larger), ClosedError)
        expect("closed executor: bytes", lambda: second.n_bytes, ClosedError)
    larger.close()

    arena = Arena()
    t = arena.new_tensor(F32, (4,))
    with Buffer.on(cpu, 64) as buffer:
        expect("does not fit", lambda: buffer.place(t, 60))
        expect("before the buffer", lambda: buffer.place(t, -4))
        buffer.place(t, 0)
        expect("placed twice", lambda: buffer.place(t, 0))
        t.set([1.0, 2.0, 3.0, 4.0])
    expect("closed buffer: value", t.numpy)
    expect("closed buffer: size", lambda: buffer.size, ClosedError)
    expect("unaligned memory", lambda: Buffer.over_memory(cpu, memoryview(bytearray(256))[1:], max_tensor_size=64))
    with Session("CPU", n_threads=1) as foreign:
        theirs = foreign.tensor([3.0, 4.0])
        expect("foreign result", lambda: s.compute(theirs + 1))
        mixed = x + theirs
        assert mixed.numpy().tolist() == [4, 6]
        late = x * theirs
    expect("foreign session closed", late.numpy, ClosedError)
    return calls


COUNT = [0]


def expect(name: str, call: Call, kind: type[PyggmlError] = PyggmlError, shapes: tuple[Tensor, ...] = ()) -> None:
    COUNT[0] += 1
    try:
        result = call()
    except kind as error:
        if not str(error) or (shapes and not shapes_named(str(error), *shapes)):
            print(f"FAIL {name}: the message does not name all shapes: {error}", flush=True)
        if shapes and not isinstance(error, ShapeError):
            print(f"FAIL {name}: {type(error).__name__} instead of ShapeError: {error}", flush=True)
    except BaseException as error:
        print(f"FAIL {name}: {type(error).__name__}: {error}", flush=True)
    else:
        print(f"FAIL {name}: returned {result!r}", flush=True)


def main() -> None:
    with Session("CPU", n_threads=2) as s:
        for name, (call, shapes) in wrong_operations(s).items():
            expect(name, call, shapes=shapes)
        for name, plain in wrong_types_and_numbers(s).items():
            expect(name, plain)
        wrong_owners(s)
        assert s.tensor([1.0]).numpy().tolist() == [1.0]
    print("calls", COUNT[0])


if __name__ == "__main__":
    main()
    sys.exit(0)
