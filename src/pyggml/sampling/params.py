"""How the next token is chosen."""

import math
from dataclasses import dataclass, fields

from pyggml.errors import ParameterError

__all__ = ["SamplingParams"]


@dataclass(frozen=True)
class SamplingParams:
    """Options of the sampler; the defaults are Ollama's.

    Attributes:
        temperature: divides the logits; 0 or less: the most likely token, nothing else matters but penalties.
        top_k: keep the k most likely tokens (Fan et al. 2018); 0 or less: all.
        top_p: keep the smallest set with at least this probability (Holtzman et al. 2019); 1: all.
        min_p: keep tokens at least this likely relative to the best one (Nguyen et al. 2024); 0: all.
        repeat_penalty: divides positive and multiplies negative logits of recent tokens (Keskar et al. 2019); 1: off.
        presence_penalty: subtracted once from the logit of each recent token.
        frequency_penalty: subtracted per occurrence of each recent token.
        repeat_last_n: how many recent tokens count; 0: none, -1: the whole context.
        seed: None: from the system's entropy; equal seeds give equal choices.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_last_n: int = 64
    seed: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            whole = field.name in ("top_k", "repeat_last_n", "seed")
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                if field.name == "seed" and value is None:
                    continue
                raise ParameterError(f"{field.name} must be {'an integer' if whole else 'a number'}, got {value!r}")
        checks = (
            ("temperature", self.temperature == self.temperature, "a number"),
            ("top_p", 0.0 <= self.top_p <= 1.0, "0 to 1"),
            ("min_p", 0.0 <= self.min_p <= 1.0, "0 to 1"),
            ("repeat_penalty", 0.0 < self.repeat_penalty < math.inf, "above 0"),
            ("presence_penalty", math.isfinite(self.presence_penalty), "finite"),
            ("frequency_penalty", math.isfinite(self.frequency_penalty), "finite"),
            ("repeat_last_n", self.repeat_last_n >= -1, "-1 or more"),
            ("seed", self.seed is None or self.seed >= 0, "0 or more, or None"),
        )
        for name, ok, allowed in checks:
            if not ok:
                raise ParameterError(f"{name} must be {allowed}, got {getattr(self, name)}")

    @property
    def penalizes(self) -> bool:
        """Whether recent tokens change anything."""
        changed = (self.repeat_penalty, self.presence_penalty, self.frequency_penalty) != (1.0, 0.0, 0.0)
        return changed and self.repeat_last_n != 0
