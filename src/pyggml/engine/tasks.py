"""From a request to a task: what can be wrong with it is found here, before it waits for a sequence."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from pyggml.errors import ContextFullError, ParameterError
from pyggml.sampling import Sampler

from .request import Request
from .task import Task

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["create_task", "prompt_too_long"]

MAX_SCALE = 100.0


def create_task(request: Request, engine: Engine) -> Task:
    """Check a request against the engine that is to run it.

    Raises:
        ContextFullError: the prompt is too long and may not be truncated.
        GrammarError: the grammar is wrong.
        ParameterError: an option does not go with the engine.
    """
    tokenizer = engine.tokenizer
    ids, truncated = _fit(request, engine.n_ctx, has_bos=tokenizer.adds_bos)
    request = replace(request, ids=ids)
    if request.ignore_eos:
        biases = dict(request.params.logit_bias) | dict.fromkeys(tokenizer.eog_ids, -math.inf)
        request = replace(request, params=replace(request.params, logit_bias=biases))
    for adapter, scale in request.adapters.items():
        if not 0 <= adapter < engine.n_adapters:
            raise ParameterError(f"there is no adapter {adapter}; the engine was opened with {engine.n_adapters}")
        if not abs(scale) <= MAX_SCALE:  # NaN, too: it would spoil the batch, and cells that others share
            raise ParameterError(f"the scale of adapter {adapter} must be -{MAX_SCALE} to {MAX_SCALE}, got {scale}")
    matcher = None if request.grammar is None else engine.grammars.compile(request.grammar)
    sampler = Sampler(request.params, n_ctx=engine.n_ctx, breakers=engine.dry_breakers(request.params))
    n_keep = len(ids) if request.n_keep < 0 else request.n_keep + tokenizer.adds_bos
    task = Task(request, tokenizer, sampler, matcher=matcher, n_keep=min(n_keep, len(ids)))
    task.stats.truncated_tokens = truncated
    return task


def prompt_too_long(n_tokens: int, n_ctx: int) -> ContextFullError:
    """The error of a prompt that cannot be computed at all."""
    return ContextFullError(
        f"the prompt's {n_tokens} tokens do not fit into a context of {n_ctx}; raise n_ctx or shorten the prompt"
    )


def _fit(request: Request, n_ctx: int, *, has_bos: bool) -> tuple[list[int], int]:
    """The prompt's tokens, as many as there is room for, and how many were taken out."""
    ids = list(request.ids)
    excess = len(ids) - n_ctx
    if excess <= 0:
        return ids, 0
    if not request.truncate:
        raise prompt_too_long(len(ids), n_ctx)
    keep = min(max(request.n_keep, 0) + has_bos, n_ctx // 2)
    return ids[:keep] + ids[keep + excess :], excess
