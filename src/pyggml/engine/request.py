"""What somebody wants generated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pyggml.errors import ParameterError
from pyggml.grammar import Grammar
from pyggml.sampling import SamplingParams

from .drafting import Drafter

__all__ = ["MAX_LOGPROBS", "Request"]

MAX_LOGPROBS = 20


@dataclass(frozen=True)
class Request:
    """A prompt and how to continue it.

    Attributes:
        ids: the prompt's tokens.
        params: how to choose tokens.
        max_tokens: stop after so many; None: when the model ends, or the context is full.
        stop: end before the first of these strings.
        ignore_eos: never choose a token that ends the answer.
        keep_special: control tokens come out as text, for parsers that look for them; those that end an answer do not.
        shift: when the context is full, forget half of what follows ``n_keep`` and go on; False: stop there.
        truncate: take tokens out of a prompt that is too long, after ``n_keep``; False: refuse it.
        n_keep: tokens at the beginning that shifting and truncating leave alone; -1: the whole prompt.
        logprobs: report the log-probability of each token and of so many of the most likely ones; None: no report.
        grammar: what the answer must look like.
        drafter: proposes tokens that are verified together (speculative decoding). At temperature 0 the answer stays
            the same: bit by bit with quantized weights on x86 CPUs with AVX2 (without AVX-512), flash attention over
            F16 and at most 8 tokens in the batch; elsewhere a token computed in a batch is rounded differently from one
            computed alone, and where two tokens are nearly equally likely the answer may take the other one.
        n_draft: most tokens proposed at once; with the known one, 8 columns are what CPU kernels like.
        adapters: scale of each LoRA adapter by index, for this request alone; others have scale 0.
        priority: requests with a higher number get a free sequence first.
    """

    ids: Sequence[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    ignore_eos: bool = False
    keep_special: bool = False
    shift: bool = False
    truncate: bool = False
    n_keep: int = 0
    logprobs: int | None = None
    grammar: Grammar | None = None
    drafter: Drafter | None = None
    n_draft: int = 7
    adapters: Mapping[int, float] = field(default_factory=dict)
    priority: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ParameterError(f"max_tokens must be 1 or more, got {self.max_tokens}")
        if self.n_keep < -1:
            raise ParameterError(f"n_keep must be -1 (the whole prompt) or more, got {self.n_keep}")
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_LOGPROBS:
            raise ParameterError(f"logprobs must be 0 to {MAX_LOGPROBS}, got {self.logprobs}")
        if self.n_draft < 1:
            raise ParameterError(f"n_draft must be 1 or more, got {self.n_draft}; leave drafter out to draft nothing")
