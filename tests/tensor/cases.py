"""One valid call for every operation; the fuzzer changes parts of it."""

from typing import Any

from pyggml.tensor import DType, ops
from pyggml.tensor.ops import PoolKind, RopeMode, RopeParams, TriType

F32, F16, I32, I64, Q8 = DType.F32, DType.F16, DType.I32, DType.I64, DType.Q8_0

Operand = tuple[tuple[int, ...], DType]
Case = tuple[list[Operand], dict[str, Any]]


def f(*shape: int) -> Operand:
    return shape, F32


def h(*shape: int) -> Operand:
    return shape, F16


def i(*shape: int) -> Operand:
    return shape, I32


ROPE = {"params": RopeParams(n_dims=8)}
MROPE = {"params": RopeParams(n_dims=8, mode=RopeMode.MROPE), "sections": (2, 1, 1, 0)}
HEADS = [f(64, 2, 4)]
UNARY = [
    "abs",
    "ceil",
    "cos",
    "elu",
    "exp",
    "expm1",
    "floor",
    "gelu",
    "gelu_erf",
    "gelu_quick",
    "hardsigmoid",
    "hardswish",
    "log",
    "neg",
    "relu",
    "round",
    "sgn",
    "sigmoid",
    "silu",
    "sin",
    "softplus",
    "sqr",
    "sqrt",
    "step",
    "tanh",
    "trunc",
    "sum",
    "sum_rows",
    "mean",
    "cumsum",
    "argsort",
    "cont",
    "dup",
    "transpose",
]
GATES = ["reglu", "geglu", "swiglu", "geglu_erf", "geglu_quick"]

CASES: dict[str, Case] = {
    **{name: ([f(4, 3, 2)], {}) for name in UNARY},
    **{name: ([f(8, 3)], {"swapped": False}) for name in GATES},
    **{f"{name}_split": ([f(4, 3), f(4, 3)], {}) for name in GATES},
    **{name: ([f(4, 3, 2), f(4, 1, 2)], {}) for name in ("add", "sub", "mul", "div")},
    "swiglu_oai": ([f(4, 3), f(4, 3)], {"alpha": 1.7, "limit": 7.0}),
    "swiglu_clamp": ([f(4, 3), f(4, 3)], {"limit": 7.0}),
    "add_cast": ([h(32, 3), f(32, 3)], {"dtype": F32}),
    "add_id": ([f(4, 2, 3), f(4, 5), i(2, 3)], {}),
    "scale": ([f(4, 3)], {"factor": 2.0}),
    "scale_bias": ([f(4, 3)], {"scale": 2.0, "bias": 1.0}),
    "clamp": ([f(4, 3)], {"low": -1.0, "high": 1.0, "inplace": False}),
    "acc": ([f(4, 3), f(2, 2)], {"strides": (), "offset": 4, "inplace": False}),
    "set_region": ([f(4, 3), f(2, 2)], {"strides": (), "offset": 4, "inplace": False}),
    "leaky_relu": ([f(4, 3)], {"slope": 0.1}),
    "xielu": ([f(4, 3)], {"alpha_n": 0.3, "alpha_p": 0.5, "beta": 0.5, "eps": -1e-6}),
    "silu_back": ([f(4, 3), f(4, 3)], {}),
    "argmax": ([f(4, 3)], {}),
    "argsort_top_k": ([f(8, 3)], {"k": 3}),
    "top_k": ([f(8, 3)], {"k": 3}),
    "count_equal": ([i(4, 3), i(4, 3)], {}),
    "norm": ([f(4, 3)], {"eps": 1e-5}),
    "rms_norm": ([f(4, 3)], {"eps": 1e-5}),
    "l2_norm": ([f(4, 3)], {"eps": 1e-5}),
    "group_norm": ([f(4, 3, 4)], {"n_groups": 2, "eps": 1e-5}),
    "rms_norm_back": ([f(4, 3), f(4, 3)], {"eps": 1e-5}),
    "mul_mat": ([((32, 3), Q8), f(32, 4)], {"prec": 0}),
    "matmul": ([f(8, 3), f(4, 8)], {}),
    "mul_mat_id": ([((32, 4, 3), Q8), f(32, 1, 5), i(2, 5)], {}),
    "out_prod": ([f(4, 3), f(5, 3)], {}),
    "get_rows": ([((32, 5), Q8), i(3)], {}),
    "get_rows_back": ([f(4, 3), i(3), f(4, 5)], {}),
    "set_rows": ([h(32, 5), f(32, 3), ((3,), I64)], {}),
    "reshape": ([f(4, 6)], {"*": (8, 3)}),
    "view": ([f(8, 6)], {"shape": (4, 3), "strides": (32,), "offset": 16}),
    "permute": ([f(4, 3, 2)], {"*": (1, 0, 2, 3)}),
    "cast": ([f(32, 3)], {"dtype": Q8}),
    "cpy": ([f(32, 3), h(32, 3)], {}),
    "repeat": ([f(4, 1), f(4, 3)], {}),
    "repeat_to": ([f(4, 1)], {"*": (8, 3)}),
    "repeat_back": ([f(8, 3), f(4, 1)], {}),
    "concat": ([f(4, 3), f(4, 2)], {"dim": 1}),
    "soft_max": ([f(8, 4, 2), h(8, 4)], {"scale": 0.5, "max_bias": 0.0}),
    "soft_max_back": ([f(8, 4), f(8, 4)], {"scale": 0.5}),
    "flash_attn": (
        [f(32, 3, 4), h(32, 6, 2), h(32, 6, 2), h(6, 3)],
        {"scale": 0.2, "max_bias": 0.0, "logit_softcap": 0.0, "prec": 10},
    ),
    "rope": ([f(8, 2, 3), i(3)], ROPE),
    "rope_back": ([f(8, 2, 3), i(3)], ROPE),
    "rope_multi": ([f(8, 2, 3), i(12)], MROPE),
    "rope_multi_back": ([f(8, 2, 3), i(12)], MROPE),
    "diag": ([f(4, 1, 2)], {}),
    "diag_mask_inf": ([f(4, 4)], {"n_past": 0}),
    "diag_mask_zero": ([f(4, 4)], {"n_past": 0}),
    "tri": ([f(4, 4)], {"kind": TriType.LOWER}),
    "fill": ([f(4, 3)], {"value": 1.0}),
    "arange": ([f(4)], {"start": 0.0, "stop": 4.0, "step": 0.5}),
    "solve_tri": ([f(4, 4), f(3, 4)], {}),
    "im2col": (
        [h(3, 3, 2, 4), f(8, 7, 2, 2)],
        {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "two_d": True, "dtype": F16},
    ),
    "im2col_back": (
        [f(3, 3, 2, 4), f(18, 6, 5, 2)],
        {"shape": (8, 7, 2, 2), "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)},
    ),
    "col2im_1d": ([f(6, 5)], {"stride": 2, "n_out": 2, "padding": 0}),
    "conv_1d": ([h(3, 2, 4), f(9, 2)], {"stride": 1, "padding": 0, "dilation": 1}),
    "conv_1d_dw": ([h(3, 1, 2), f(9, 2)], {"stride": 1, "padding": 0, "dilation": 1}),
    "conv_transpose_1d": ([h(3, 4, 2), f(9, 2)], {"stride": 1}),
    "conv_transpose_2d": ([h(3, 3, 4, 2), f(5, 4, 2)], {"stride": 1}),
    "conv_2d": ([h(3, 3, 2, 4), f(8, 7, 2, 2)], {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}),
    "conv_2d_direct": ([h(3, 3, 2, 4), f(8, 7, 2, 2)], {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}),
    "conv_2d_dw": ([h(3, 3, 1, 2), f(8, 7, 2, 2)], {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}),
    "conv_2d_dw_direct": ([h(3, 3, 1, 2), f(8, 7, 2, 2)], {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}),
    "im2col_3d": (
        [h(2, 2, 2, 6), f(5, 4, 4, 4)],
        {"n_channels": 2, "stride": (1, 1, 1), "padding": (0, 0, 0), "dilation": (1, 1, 1), "dtype": F16},
    ),
    "conv_3d": (
        [h(2, 2, 2, 6), f(5, 4, 4, 4)],
        {"n_channels": 2, "stride": (1, 1, 1), "padding": (0, 0, 0), "dilation": (1, 1, 1)},
    ),
    "conv_3d_direct": (
        [h(2, 2, 2, 6), f(5, 4, 4, 4)],
        {"n_channels": 2, "stride": (1, 1, 1), "padding": (0, 0, 0), "dilation": (1, 1, 1)},
    ),
    "pool_1d": ([f(8, 3)], {"kind": PoolKind.MAX, "kernel": 2, "stride": 2, "padding": 0}),
    "pool_2d": ([f(8, 6, 2)], {"kind": PoolKind.AVG, "kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)}),
    "pool_2d_back": (
        [f(4, 3, 2), f(8, 6, 2)],
        {"kind": PoolKind.AVG, "kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)},
    ),
    "upscale": ([f(4, 3, 2)], {"factor": 2, "mode": ops.ScaleMode.BILINEAR}),
    "interpolate": (
        [f(4, 3, 2)],
        {"*": (6, 2), "mode": ops.ScaleMode.BILINEAR, "align_corners": False, "antialias": False},
    ),
    "pad": ([f(4, 3)], {"*": (1, 2), "before": (1,)}),
    "pad_circular": ([f(4, 3)], {"*": (1, 2), "before": (1,)}),
    "pad_reflect_1d": ([f(4, 3)], {"before": 1, "after": 2}),
    "roll": ([f(4, 3)], {"*": (1, -2)}),
    "timestep_embedding": ([f(3)], {"dim": 8, "max_period": 1000}),
    "win_part": ([f(4, 7, 5)], {"window": 3}),
    "win_unpart": ([f(4, 3, 3, 6)], {"width": 7, "height": 5}),
    "get_rel_pos": ([h(4, 5)], {"size": 3}),
    "add_rel_pos": ([f(9, 8, 2), f(3, 4, 2, 2), f(3, 4, 2, 2)], {"inplace": False}),
    "ssm_conv": ([f(8, 3, 2), f(4, 3)], {}),
    "ssm_scan": (
        [f(16, 4, 2, 3), f(4, 2, 3, 2), f(2, 3, 2), f(1, 2), f(16, 1, 3, 2), f(16, 1, 3, 2), i(2)],
        {"n_snapshots": 1},
    ),
    "rwkv_wkv6": ([f(8, 2, 4), f(8, 2, 4), f(8, 2, 4), f(16), f(8, 2, 4), f(128, 2)], {}),
    "rwkv_wkv7": (HEADS * 6 + [f(8192, 2)], {}),
    "gated_linear_attn": ([f(8, 2, 4)] * 4 + [f(128, 2)], {"scale": 0.3}),
    "gated_delta_net": (
        [f(8, 2, 3, 2), f(8, 2, 3, 2), f(8, 4, 3, 2), f(1, 4, 3, 2), f(1, 4, 3, 2), f(8, 8, 4, 2)],
        {"n_snapshots": 1},
    ),
    "lightning_indexer": ([f(32, 3, 4), h(32, 1, 5), f(3, 4), h(5, 4)], {}),
    "dsv4_hc_comb": ([f(24, 3), f(3), f(24)], {"eps": 1e-6, "n_iter": 2}),
    "dsv4_hc_pre": ([f(6, 4, 3), f(4, 3)], {}),
    "dsv4_hc_pre_gated": ([f(6, 4, 3), f(6, 4, 3)], {"scale": 0.5}),
    "dsv4_hc_post": ([f(6, 3), f(6, 4, 3), f(4, 3), f(4, 4, 3)], {}),
    "cross_entropy_loss": ([f(4, 3), f(4, 3)], {}),
    "cross_entropy_loss_back": ([f(1), f(4, 3), f(4, 3)], {}),
    "opt_step_adamw": ([f(4, 3)] * 4 + [f(7)], {}),
    "opt_step_sgd": ([f(4, 3)] * 2 + [f(2)], {}),
}


NO_CASE = {
    "add_sinks": "changes a node: test_abuse",
    "custom": "calls Python: test_custom",
}
