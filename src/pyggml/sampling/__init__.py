"""Sampling: a row of logits in, a token out, by llama.cpp's chain; and how likely a token was."""

from .breakers import DryBreakers
from .params import SamplingParams
from .sampler import Sampler, TokenLogprobs, logprobs

__all__ = ["DryBreakers", "Sampler", "SamplingParams", "TokenLogprobs", "logprobs"]
