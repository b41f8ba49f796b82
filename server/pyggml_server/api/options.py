"""The ``options`` object: what a request says over what the model says over the defaults."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pyggml_server.errors import BadRequestError
from pyggml_server.scheduler import LoadOptions

__all__ = ["KNOWN_OPTIONS", "Options", "merge_options"]

_log: Final = logging.getLogger(__name__)

_INT, _FLOAT, _BOOL = "integer", "float32", "boolean"
_LOAD: Final = {
    "num_ctx": _INT, "num_batch": _INT, "num_gpu": _INT, "main_gpu": _INT, "use_mmap": _BOOL, "num_thread": _INT,
}  # fmt: skip
_SAMPLING: Final = {
    "temperature": _FLOAT, "top_k": _INT, "top_p": _FLOAT, "min_p": _FLOAT, "typical_p": _FLOAT,
    "top_n_sigma": _FLOAT, "xtc_probability": _FLOAT, "xtc_threshold": _FLOAT, "dynatemp_range": _FLOAT,
    "dynatemp_exponent": _FLOAT, "mirostat": _INT, "mirostat_tau": _FLOAT, "mirostat_eta": _FLOAT,
    "repeat_penalty": _FLOAT, "presence_penalty": _FLOAT, "frequency_penalty": _FLOAT, "repeat_last_n": _INT,
    "dry_multiplier": _FLOAT, "dry_base": _FLOAT, "dry_allowed_length": _INT, "dry_penalty_last_n": _INT,
    "dry_sequence_breakers": "array", "logit_bias": "object", "min_keep": _INT, "seed": _INT,
}  # fmt: skip
_GENERATION: Final = {
    "num_keep": _INT, "num_predict": _INT, "stop": "array", "ignore_eos": _BOOL, "draft_num_predict": _INT,
    "adapters": "numbers",
}  # fmt: skip
KNOWN_OPTIONS: Final[Mapping[str, str]] = {**_LOAD, **_SAMPLING, **_GENERATION}
"""Every option that acts, with its kind."""

# Modelfiles of old versions hold these; Ollama warns and goes on
_RETIRED: Final = frozenset({"penalize_newline", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock"})
_PROBABILITIES: Final = ("top_p", "min_p", "typical_p")
_MIN_CTX: Final = 4
_DRAFT: Final = 4  # tokens, where a draft model proposes them
_MOST_THREADS: Final = 512  # ggml's own limit


@dataclass(frozen=True, slots=True)
class Options:
    """Options, merged and of the right types.

    Attributes:
        load: What decides how the model is loaded.
        sampling: Fields of :class:`pyggml.sampling.SamplingParams` by name.
        num_predict: Most tokens to generate; 0 or less: no limit of its own.
        num_keep: Tokens at the beginning that truncating and shifting leave alone; negative: the whole prompt.
        stop: Texts before which the answer ends.
        ignore_eos: Never end on the model's own wish.
        draft: Tokens to draft: by the draft model that ``load`` names, or by prompt lookup; 0: none.
        adapters: Scales of the model's adapters, in order; None: each 1.
    """

    load: LoadOptions
    sampling: Mapping[str, Any] = field(default_factory=dict)
    num_predict: int = -1
    num_keep: int = 4
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    draft: int = 0
    adapters: tuple[float, ...] | None = None

    def limit(self, n_ctx: int) -> int:
        """Most tokens to generate: never more than ten contexts, as Ollama bounds endless answers."""
        most = 10 * n_ctx
        return most if self.num_predict <= 0 else min(self.num_predict, most)

    def adapter_scales(self, n_adapters: int) -> dict[int, float]:
        """Scale of each adapter by index.

        Raises:
            BadRequestError: there are not so many adapters.
        """
        if self.adapters is None:
            return dict.fromkeys(range(n_adapters), 1.0)
        if len(self.adapters) > n_adapters:
            raise BadRequestError(f'option "adapters" has {len(self.adapters)} scales, the model has {n_adapters}')
        return dict(enumerate(self.adapters))


def merge_options(stored: Mapping[str, Any], given: Mapping[str, Any], *, draft: Path | None = None) -> Options:
    """Options of a request over the parameters of the model; unknown ones are logged and ignored.

    Args:
        stored: The model's parameters.
        given: The request's options.
        draft: The model's draft model. It is loaded, and asked for four tokens at a time, unless ``draft_num_predict``
            says otherwise.

    Raises:
        BadRequestError: a value has the wrong type; the text is Ollama's.
    """
    merged: dict[str, Any] = {}
    for source in (stored, given):
        merged |= _checked(source)
    load = {name: merged[name] for name in _LOAD if name in merged}
    sampling = {name: merged[name] for name in _SAMPLING if name in merged}
    for name in _PROBABILITIES:
        if name in sampling:
            sampling[name] = min(max(sampling[name], 0.0), 1.0)
    if sampling.get("seed", 0) < 0:
        del sampling["seed"]  # -1: a random one
    n_draft = max(0, merged.get("draft_num_predict", _DRAFT if draft is not None else 0))
    return Options(
        load=LoadOptions(**_load_values(load), draft=draft if n_draft else None),
        sampling=sampling,
        num_predict=merged.get("num_predict", -1),
        num_keep=merged.get("num_keep", 4),
        stop=tuple(text for text in merged.get("stop", ()) if text),
        ignore_eos=merged.get("ignore_eos", False),
        draft=n_draft,
        adapters=merged.get("adapters"),
    )


def _load_values(load: dict[str, Any]) -> dict[str, Any]:
    """Ollama's words for "automatic" become None."""
    for name, automatic in (("num_ctx", 0), ("num_batch", 0), ("num_thread", 0), ("num_gpu", -1)):
        if load.get(name, automatic) <= automatic:
            load[name] = None
    if load.get("main_gpu", 0) < 0:
        load["main_gpu"] = None
    if load["num_ctx"] is not None:
        load["num_ctx"] = max(load["num_ctx"], _MIN_CTX)
    return load


def _checked(source: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in source.items():
        kind = KNOWN_OPTIONS.get(name)
        if kind is None:
            reason = "no longer exists" if name in _RETIRED else "is not known"
            _log.warning("option %r %s and is ignored", name[:100], reason)
        elif value is not None:
            values[name] = _convert(name, kind, value)
    return values


def _convert(name: str, kind: str, value: Any) -> Any:
    number = _is_number(value)
    if kind == _INT and number:
        return _integer(name, value)
    if kind == _FLOAT and number:
        return float(value)
    if kind == _BOOL and isinstance(value, bool):
        return value
    if kind == "array":
        return _texts(name, value)
    if kind == "numbers" and isinstance(value, list) and all(_is_number(v) for v in value):
        return tuple(float(v) for v in value)
    if kind == "object" and isinstance(value, Mapping):
        return {_token(name, key): _bias(name, bias) for key, bias in value.items()}
    raise BadRequestError(f'option "{name}" must be of type {"array" if kind == "numbers" else kind}')


def _integer(name: str, value: float) -> int:
    if not -(2**63) <= value < 2**63:
        raise BadRequestError(f'option "{name}" must be an integer of 64 bits, got {value}')
    if name == "num_thread" and value > _MOST_THREADS:
        raise BadRequestError(f'option "{name}" must be {_MOST_THREADS} or less, got {value}')
    return int(value)


def _texts(name: str, value: Any) -> list[str]:
    if isinstance(value, str) and name == "stop":
        return [value]  # Modelfiles of some registries hold a bare text
    if not isinstance(value, list):
        raise BadRequestError(f'option "{name}" must be of type array')
    if not all(isinstance(text, str) for text in value):
        raise BadRequestError(f'option "{name}" must be of an array of strings')
    return value


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def _token(name: str, key: Any) -> int:
    text = str(key)
    if not (text.isascii() and text.isdigit() and int(text) < 2**31):
        raise BadRequestError(f'option "{name}" must map token ids to numbers, got the key {text[:40]!r}')
    return int(text)


def _bias(name: str, value: Any) -> float:
    if value is False:
        return -math.inf  # JSON has no infinity; llama.cpp's server spells a ban this way too
    if not _is_number(value):
        raise BadRequestError(f'option "{name}" must map token ids to numbers (or false, which forbids the token)')
    return float(value)
