"""Sampling: a row of logits in, a token out."""

from .params import SamplingParams
from .sampler import Sampler

__all__ = ["Sampler", "SamplingParams"]
