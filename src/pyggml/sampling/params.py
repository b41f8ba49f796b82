"""How the next token is chosen."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from pyggml.errors import ParameterError

__all__ = ["SamplingParams"]

LONGEST_BREAKER = 40  # bytes; as in llama.cpp, longer ones could only be mistakes
FLOAT_MAX = 3.4028234663852886e38

# name: (is an integer, least, largest, how the range reads)
RANGES: dict[str, tuple[bool, float, float, str]] = {
    "temperature": (False, -FLOAT_MAX, FLOAT_MAX, "finite"),
    "top_k": (True, -(2**31), 2**31 - 1, "a 32-bit integer"),
    "top_p": (False, 0, 1, "0 to 1"),
    "min_p": (False, 0, 1, "0 to 1"),
    "typical_p": (False, 0, 1, "0 to 1"),
    "top_n_sigma": (False, -FLOAT_MAX, FLOAT_MAX, "finite"),
    "xtc_probability": (False, 0, 1, "0 to 1"),
    "xtc_threshold": (False, 0, 1, "0 to 1"),
    "dynatemp_range": (False, 0, FLOAT_MAX, "0 or more"),
    "dynatemp_exponent": (False, 0, FLOAT_MAX, "0 or more"),
    "mirostat": (True, 0, 2, "0, 1 or 2"),
    "mirostat_tau": (False, 0, FLOAT_MAX, "0 or more"),
    "mirostat_eta": (False, 0, FLOAT_MAX, "0 or more"),
    "repeat_penalty": (False, 1e-38, FLOAT_MAX, "above 0"),
    "presence_penalty": (False, -FLOAT_MAX, FLOAT_MAX, "finite"),
    "frequency_penalty": (False, -FLOAT_MAX, FLOAT_MAX, "finite"),
    "repeat_last_n": (True, -1, 2**31 - 1, "-1 or more"),
    "dry_multiplier": (False, 0, FLOAT_MAX, "0 or more"),
    "dry_base": (False, 1, FLOAT_MAX, "1 or more"),
    "dry_allowed_length": (True, 0, 2**31 - 1, "0 or more"),
    "dry_penalty_last_n": (True, -1, 2**31 - 1, "-1 or more"),
    "min_keep": (True, 0, 2**31 - 1, "0 or more"),
}


@dataclass(frozen=True)
class SamplingParams:
    """Options of the sampler, by the names and with the defaults of Ollama; what Ollama lacks is llama.cpp's, and off.

    They act in llama.cpp's order: ``logit_bias``, penalties, DRY, ``top_n_sigma``, ``top_k``, ``typical_p``, ``top_p``,
    ``min_p``, XTC, temperature. Each of them sees only the tokens that those before it have left.

    Attributes:
        temperature: divides the logits; 0 or less: the most likely token, after bias, penalties and mask.
        top_k: keep the k most likely tokens (Fan et al. 2018); 0 or less: all.
        top_p: keep the smallest set with at least this probability (Holtzman et al. 2019); 1: all.
        min_p: keep tokens at least this likely relative to the best one (Nguyen et al. 2024); 0: all.
        typical_p: keep the tokens whose surprise is nearest to the expected one, until their probability exceeds this
            (Meister et al. 2022); 1: all.
        top_n_sigma: keep tokens whose logit is at most this many standard deviations of all logits below the best
            (Tang et al. 2024); 0 or less: all.
        xtc_probability: how often XTC acts (p-e-w 2024): of the tokens with at least ``xtc_threshold`` it keeps only
            the least likely one; 0: never.
        xtc_threshold: see there; above 0.5 never two tokens reach it, so XTC is off.
        dynatemp_range: the temperature moves this far down or up, as the entropy of what is left is low or high (EDT,
            Zhang et al. 2024); 0: it stays.
        dynatemp_exponent: 1: the temperature grows linearly with the entropy; above: later.
        mirostat: 1 or 2: instead of the truncations (from ``top_n_sigma`` to XTC), hold the surprise of the text at
            ``mirostat_tau`` bits per token (Basu et al. 2021); 0: off.
        mirostat_tau: the surprise to hold.
        mirostat_eta: how fast it is corrected.
        repeat_penalty: divides positive and multiplies negative logits of recent tokens (Keskar et al. 2019); 1: off.
        presence_penalty: subtracted once from the logit of each recent token.
        frequency_penalty: subtracted per occurrence of each recent token.
        repeat_last_n: how many recent tokens count; 0: none, -1: the whole context.
        dry_multiplier: strength of DRY (p-e-w 2024), which subtracts ``multiplier * base ** (n - allowed_length)`` from
            the logit of a token that would prolong a repeat of n tokens; 0: off.
        dry_base: see there.
        dry_allowed_length: shorter repeats are free.
        dry_penalty_last_n: how many recent tokens DRY looks at; 0: none, -1: the whole context.
        dry_sequence_breakers: texts that no repeat reaches across.
        logit_bias: added to the logits of these tokens; ``-inf`` forbids one. Pairs, or a mapping from id to bias.
        min_keep: ``typical_p``, ``top_p``, ``min_p`` and XTC leave at least this many tokens.
        seed: None: from the system's entropy; equal seeds give equal choices.

    Raises:
        ParameterError: an option is of the wrong type or out of its range; the message names it.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_last_n: int = 64
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64
    dry_sequence_breakers: Sequence[str] = ("\n", ":", '"', "*")
    logit_bias: Mapping[int, float] | Sequence[tuple[int, float]] = ()
    min_keep: int = 0
    seed: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name in RANGES:
                _check_number(field.name, getattr(self, field.name))
        if self.seed is not None and (not _whole(self.seed) or self.seed < 0):
            raise ParameterError(f"seed must be an integer of 0 or more, or None, got {self.seed!r}")
        # Frozen, so that one object may serve many sequences; these two come in any shape and are kept in one.
        object.__setattr__(self, "dry_sequence_breakers", _breakers(self.dry_sequence_breakers))
        object.__setattr__(self, "logit_bias", _bias(self.logit_bias))

    @property
    def penalizes(self) -> bool:
        """Whether recent tokens change anything through the penalties."""
        changed = (self.repeat_penalty, self.presence_penalty, self.frequency_penalty) != (1.0, 0.0, 0.0)
        return changed and self.repeat_last_n != 0

    @property
    def dries(self) -> bool:
        """Whether recent tokens change anything through DRY."""
        return self.dry_multiplier > 0.0 and self.dry_penalty_last_n != 0


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_number(name: str, value: Any) -> None:
    integer, least, largest, allowed = RANGES[name]
    if not _whole(value) and (integer or not isinstance(value, float)):
        raise ParameterError(f"{name} must be {'an integer' if integer else 'a number'}, got {value!r}")
    if not least <= value <= largest:  # NaN is not either
        raise ParameterError(f"{name} must be {allowed}, got {value!r}")


def _breakers(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ParameterError(f"dry_sequence_breakers must be a list of texts, got {value!r}")
    for text in value:
        if not isinstance(text, str) or not 0 < len(text.encode("utf-8", "surrogatepass")) <= LONGEST_BREAKER:
            raise ParameterError(
                f"dry_sequence_breakers must be texts of 1 to {LONGEST_BREAKER} bytes of UTF-8, got {text!r}"
            )
    return tuple(value)


def _bias(value: Any) -> tuple[tuple[int, float], ...]:
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    if isinstance(pairs, str) or not isinstance(pairs, Sequence):
        raise ParameterError(f"logit_bias must map token ids to numbers, got {value!r}")
    found: dict[int, float] = {}
    for pair in pairs:
        if not isinstance(pair, Sequence) or len(pair) != 2 or not _whole(pair[0]) or not 0 <= pair[0] < 2**31:
            raise ParameterError(f"logit_bias must hold pairs of a token id (0 or more) and a number, got {pair!r}")
        token, bias = pair
        number = _whole(bias) or isinstance(bias, float)
        if not number or not (-FLOAT_MAX <= bias <= FLOAT_MAX or bias == -math.inf):
            raise ParameterError(f"logit_bias of token {token} must be a finite number or -inf, got {bias!r}")
        if token in found:
            raise ParameterError(f"logit_bias names token {token} twice")
        found[token] = float(bias)
    return tuple(sorted(found.items()))
