"""Which type each tensor of a quantized model gets.

The names (``Q4_K_M`` …) and rules are llama.cpp's (``llama-quant.cpp``, without importance matrix), so that a
file made here equals one made there. The rules that llama.cpp has for single models (Falcon, Llama 2 70B, GLM 5)
are left out.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from pyggml.errors import ParameterError
from pyggml.gguf import GGMLType, TensorInfo

__all__ = ["MIXES", "Mix", "MixModel", "choose_types", "find_mix", "sort_key"]

_T: Final = GGMLType
_KEPT: Final = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj",
    "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight", "time_mix_first.weight",
    "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight", "time_mix_v1.weight",
    "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight", "time_mix_g1.weight",
    "time_mix_g2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight",
    "attn_rel_b.weight", ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd",
    ".patch_merger", "a.rvq.codebook", "mm.a.code_embd",
)  # fmt: skip
_KEPT_WHOLE: Final = frozenset({"position_embd.weight", "token_types.weight"})
# order counts: the first name that is found decides
_KINDS: Final = (
    ("attn_qkv.weight", "attn_qkv"), ("attn_kv_b.weight", "attn_v"), ("attn_v.weight", "attn_v"),
    ("attn_k.weight", "attn_k"), ("attn_q.weight", "attn_q"), ("attn_output.weight", "attn_output"),
    ("ffn_up", "ffn_up"), ("ffn_gate", "ffn_gate"), ("ffn_down", "ffn_down"),
)  # fmt: skip
_FALLBACKS: Final = MappingProxyType(
    {
        _T.IQ4_XS: _T.IQ4_NL,
        _T.Q2_K: _T.Q4_0,
        _T.Q3_K: _T.Q4_0,
        _T.Q4_K: _T.Q5_0,
        _T.Q5_K: _T.Q5_1,
        _T.Q6_K: _T.Q8_0,
    }
)


@dataclass(frozen=True, slots=True)
class Mix:
    """A named mix: ``general.file_type`` and the type of most tensors."""

    name: str
    file_type: int
    base: GGMLType


@dataclass(frozen=True, slots=True)
class MixModel:
    """What the rules ask of a model: query heads per key head, and experts."""

    n_gqa: int = 1
    n_expert: int = 0


MIXES: Final[Mapping[str, Mix]] = MappingProxyType(
    {
        mix.name: mix
        for mix in (
            Mix("F32", 0, _T.F32), Mix("F16", 1, _T.F16), Mix("BF16", 32, _T.BF16),
            Mix("Q4_0", 2, _T.Q4_0), Mix("Q4_1", 3, _T.Q4_1), Mix("Q5_0", 8, _T.Q5_0), Mix("Q5_1", 9, _T.Q5_1),
            Mix("Q8_0", 7, _T.Q8_0), Mix("Q2_K", 10, _T.Q2_K), Mix("Q3_K_S", 11, _T.Q3_K),
            Mix("Q3_K_M", 12, _T.Q3_K), Mix("Q3_K_L", 13, _T.Q3_K), Mix("Q4_K_S", 14, _T.Q4_K),
            Mix("Q4_K_M", 15, _T.Q4_K), Mix("Q5_K_S", 16, _T.Q5_K), Mix("Q5_K_M", 17, _T.Q5_K),
            Mix("Q6_K", 18, _T.Q6_K), Mix("IQ4_NL", 25, _T.IQ4_NL), Mix("IQ4_XS", 30, _T.IQ4_XS),
        )
    }
)  # fmt: skip
"""All mixes by name."""
_SHORT: Final = MappingProxyType({"Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "Q3_K": "Q3_K_M"})


def find_mix(text: str) -> Mix:
    """A mix by its name, in any case; ``Q4_K`` means ``Q4_K_M``.

    Raises:
        ParameterError: there is none of that name.
    """
    name = text.upper()
    mix = MIXES.get(_SHORT.get(name, name))
    if mix is None:
        raise ParameterError(f"unsupported quantization type {text[:40]} - supported types are {', '.join(MIXES)}")
    return mix


def sort_key(name: str) -> tuple[int, bytes]:
    """Tensors outside of blocks first, then block by block; within one by name."""
    match = re.match(r"blk\.(\d+)\.", name)
    return (int(match[1]) if match else -1, name.encode("utf-8", "surrogateescape"))


def choose_types(tensors: Sequence[TensorInfo], mix: Mix, model: MixModel) -> dict[str, GGMLType]:
    """The new type of each tensor.

    Args:
        tensors: All tensors, ordered by :func:`sort_key`; the rules count them.
        mix: What is asked for.
        model: What the rules ask of the model.
    """
    rules = _Rules(mix, model, tensors)
    return {info.name: rules.choose(info) for info in tensors}


def _may_change(info: TensorInfo) -> bool:
    n_dims = max((i + 1 for i, n in enumerate(info.shape) if n > 1), default=1)
    if n_dims < 2 or not info.name.endswith("weight") or info.name in _KEPT_WHOLE:
        return False
    return not any(part in info.name for part in _KEPT)


def _kind(name: str) -> str:
    if name == "output.weight":
        return "output"
    if name in ("token_embd.weight", "per_layer_token_embd.weight"):
        return "token_embd"
    return next((kind for part, kind in _KINDS if part in name), "")


def _more_bits(i: int, n: int) -> bool:
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


@dataclass(slots=True)
class _Rules:
    """The rules, with the counters that they need."""

    mix: Mix
    model: MixModel
    tensors: Sequence[TensorInfo]
    _tied: bool = True
    _totals: dict[str, int] = field(default_factory=dict)
    _seen: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for info in self.tensors:
            kind = _kind(info.name)
            self._tied &= kind != "output"
            group = "attn_v" if kind == "attn_qkv" else kind
            self._totals[group] = self._totals.get(group, 0) + 1

    def choose(self, info: TensorInfo) -> GGMLType:
        """The type of one tensor."""
        if not _may_change(info):
            return info.type
        if not self.mix.base.is_quantized:
            return self.mix.base
        return _fit(self._choose(info), info.shape[0])

    def _choose(self, info: TensorInfo) -> GGMLType:
        kind, base = _kind(info.name), self.mix.base
        if kind == "output" or (kind == "token_embd" and self._tied):
            if info.shape[0] % base.block_size:
                return _T.Q8_0
            return base if base is _T.Q8_0 else _T.Q6_K
        if kind in ("attn_v", "attn_qkv"):
            return self._attn_v(self._count("attn_v"))
        if kind == "attn_k" and self.model.n_expert == 8:
            return _T.Q8_0
        if kind == "ffn_down":
            return self._ffn_down(self._layer(info.name, self._count(kind)))
        if kind == "attn_output":
            return self._attn_output()
        return base

    def _attn_v(self, i: int) -> GGMLType:
        name, gqa, chosen = self.mix.name, self.model.n_gqa >= 4, self.mix.base
        if self.model.n_expert == 8:
            return _T.Q8_0
        if name == "Q2_K":
            chosen = _T.Q4_K if gqa else _T.Q3_K
        elif name == "Q3_K_M":
            chosen = _T.Q5_K if i < 2 else _T.Q4_K
        elif name == "Q3_K_L" or (name in ("IQ4_NL", "IQ4_XS") and gqa) or (name == "Q4_K_S" and i < 4):
            chosen = _T.Q5_K
        elif name in ("Q4_K_M", "Q5_K_M") and _more_bits(i, self._totals["attn_v"]):
            chosen = _T.Q6_K
        return chosen

    def _ffn_down(self, i: int) -> GGMLType:
        name, n, chosen = self.mix.name, self._totals["ffn_down"], self.mix.base
        if name == "Q2_K":
            chosen = _T.Q3_K
        elif name == "Q3_K_M":
            chosen = _T.Q5_K if i < n // 16 else _T.Q4_K
        elif name == "Q3_K_L" or (name in ("IQ4_NL", "IQ4_XS", "Q4_K_S") and i < n // 8):
            chosen = _T.Q5_K
        elif name in ("Q4_K_M", "Q5_K_M") and _more_bits(i, n):
            chosen = _T.Q6_K
        return chosen

    def _attn_output(self) -> GGMLType:
        name = self.mix.name
        if self.model.n_expert == 8:
            few = ("Q2_K", "Q3_K_S", "Q3_K_M", "IQ4_NL", "IQ4_XS", "Q4_K_S", "Q4_K_M")
            return _T.Q5_K if name in few else self.mix.base
        more = {"Q2_K": _T.Q3_K, "Q3_K_M": _T.Q4_K, "Q3_K_L": _T.Q5_K}
        return more.get(name, self.mix.base)

    def _count(self, kind: str) -> int:
        i = self._seen.get(kind, 0)
        self._seen[kind] = i + 1
        return i

    def _layer(self, name: str, i: int) -> int:
        # the tensors of experts do not come in the order of the layers
        match = re.match(r"blk\.(\d+)\.", name) if self.model.n_expert > 1 else None
        return int(match[1]) if match else i


def _fit(wanted: GGMLType, n_columns: int) -> GGMLType:
    """The type itself where rows hold whole blocks of it, else the next one that fits."""
    if n_columns % wanted.block_size == 0:
        return wanted
    smaller = _FALLBACKS.get(wanted, wanted)
    return smaller if n_columns % smaller.block_size == 0 else _T.F16
