"""Every operation of the pinned ggml is wrapped, or left out for a reason given here."""

import re
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import pyggml.tensor as room
from pyggml._ffi import lib

ROOT = Path(__file__).parents[2]
HEADER = ROOT / "vendor/ggml/src/include/ggml.h"
SOURCES = Path(room.__file__).parent

# A function is left out when its name matches; the reason says what to call instead.
EXCLUDED = {
    r"ggml_\w+_inplace": "rule: the plain variant allocates a result; clamp, acc, set and add_rel_pos take inplace=",
    r"ggml_new_tensor_\dd": "Arena.new_tensor",
    r"ggml_dup_tensor|ggml_view_tensor": "make a leaf or a view: Arena.new_tensor, ops.view",
    r"ggml_get_tensor": "Graph.find",
    r"ggml_set_name|ggml_format_name": "Tensor.name",
    r"ggml_add1": "deprecated: add",
    r"ggml_rope_custom|ggml_upscale_ext": "deprecated: rope, interpolate",
    r"ggml_rope": "ggml_rope_ext with defaults: rope",
    r"ggml_scale": "ggml_scale_bias without bias: scale",
    r"ggml_soft_max": "ggml_soft_max_ext without mask: soft_max",
    r"ggml_repeat": "ggml_repeat_4d with the shape of a tensor: repeat",
    r"ggml_reshape(_[123]d)?|ggml_view_[123]d|ggml_cont_[123]d": "the 4d form: reshape, view, cont",
    r"ggml_set_[12]d": "ggml_set with no or one stride: set_region",
    r"ggml_pad|ggml_pad_circular": "the ext form: pad, pad_circular",
    r"ggml_conv_1d_ph|ggml_conv_1d_dw_ph": "conv_1d, conv_1d_dw with padding=kernel // 2",
    r"ggml_conv_2d_sk_p0": "conv_2d with stride=kernel",
    r"ggml_conv_2d_s1_ph": "conv_2d with padding=kernel // 2",
    r"ggml_unary|ggml_glu|ggml_glu_split": "one function per operation: ops.relu, ops.swiglu, ...",
    r"ggml_map_custom[123]": "custom",
    r"ggml_flash_attn_back": "ggml aborts: not adapted to flash_attn_ext",
    r"ggml_build_forward_select": "changes a graph, makes no node",
    r"ggml_set_zero": "Buffer.clear, Tensor.set",
    r"ggml_graph_\w+": "reads a graph, makes no node",
}


@cache
def functions() -> list[str]:
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", HEADER.read_text(encoding="utf-8"), flags=re.S)
    return sorted(set(re.findall(r"struct\s+ggml_tensor\s*\*\s*(ggml_\w+)\s*\(", text)))


@cache
def wrapped() -> set[str]:
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES.rglob("*.py"))
    return set(re.findall(r"lib\.(ggml_\w+)", text))


def test_header_is_read() -> None:
    assert len(functions()) > 200


@pytest.mark.parametrize("name", functions())
def test_wrapped_or_excluded(name: str) -> None:
    assert name in wrapped() or any(re.fullmatch(pattern, name) for pattern in EXCLUDED), (
        f"{name} is new: wrap it in tensor/ops or say here why not"
    )


@pytest.mark.parametrize("pattern", EXCLUDED)
def test_exclusions_are_needed(pattern: str) -> None:
    left_out = [name for name in functions() if re.fullmatch(pattern, name)]
    assert left_out, f"{pattern} matches no function of this ggml"


def test_every_unary_and_gate_of_the_enum_is_there() -> None:
    ops = import_module("pyggml.tensor.ops")
    for i in range(lib.GGML_UNARY_OP_COUNT):
        from pyggml._ffi import ffi

        name = ffi.string(lib.ggml_unary_op_name(i)).decode().lower()
        assert name in ops.__all__, name
    for i in range(lib.GGML_GLU_OP_COUNT):
        name = ffi.string(lib.ggml_glu_op_name(i)).decode().lower()
        assert name in ops.__all__, name
