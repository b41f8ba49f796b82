"""Rotary position embedding: its numbers from GGUF metadata."""

from dataclasses import replace
from math import log

from pyggml.errors import ModelError
from pyggml.gguf import ModelMetadata
from pyggml.tensor.ops import RopeMode, RopeParams

__all__ = ["RopeMode", "RopeParams", "rope_params", "shift_params"]


def rope_params(
    meta: ModelMetadata,
    *,
    mode: RopeMode,
    n_dims: int,
    freq_base: float = 10000.0,
    freq_base_key: str = "rope.freq_base",
) -> RopeParams:
    """What the keys ``<arch>.rope.*`` say.

    ``rope.scaling.type`` is ``none``, ``linear`` (Chen et al. 2023) or ``yarn`` (Peng et al. 2023).

    Raises:
        ModelError: another scaling type (``longrope`` has two sets of factors, which no model here uses yet).
    """
    kind = meta.get_str("rope.scaling.type", default="linear")  # without a factor it changes nothing
    if kind not in ("none", "linear", "yarn"):
        raise ModelError(f"{meta.path}: rope.scaling.type {kind!r} is not supported; supported: none, linear, yarn")
    factor = meta.get_float("rope.scaling.factor", default=meta.get_float("rope.scale_linear", default=0.0))
    n_ctx_train = meta.get_int("context_length", default=0)
    ext_factor = meta.get_float("rope.scaling.yarn_ext_factor", default=-1.0)
    if ext_factor < 0.0:
        ext_factor = 1.0 if kind == "yarn" else 0.0
    attn_factor = meta.get_float("rope.scaling.attn_factor", default=1.0)
    if not ext_factor:  # with it, the factor follows from the scale, as in llama.cpp
        attn_factor *= meta.get_float("rope.scaling.yarn_attn_factor", default=1.0)
    return RopeParams(
        n_dims=meta.get_int("rope.dimension_count", default=n_dims),
        mode=mode,
        n_ctx_orig=meta.get_int("rope.scaling.original_context_length", default=n_ctx_train),
        freq_base=meta.get_float(freq_base_key, default=freq_base),
        freq_scale=1.0 / factor if factor > 0.0 and kind != "none" else 1.0,
        ext_factor=ext_factor,
        attn_factor=attn_factor,
        beta_fast=meta.get_float("rope.scaling.yarn_beta_fast", default=32.0),
        beta_slow=meta.get_float("rope.scaling.yarn_beta_slow", default=1.0),
    )


def shift_params(params: RopeParams) -> RopeParams:
    """For rotating stored keys on: the same angles, without lengthening them once more (YaRN, ``attn_factor``)."""
    yarn = 1.0 + 0.1 * log(1.0 / params.freq_scale) if params.ext_factor else 1.0
    return replace(params, attn_factor=1.0 / yarn)
