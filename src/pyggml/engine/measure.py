"""Speed: what ``pyggml bench`` runs."""

import time

import numpy as np

from pyggml.errors import ModelError, ParameterError

from .engine import Engine

__all__ = ["measure"]

SEED = 20260101


def measure(engine: Engine, *, n_prompt: int = 0, n_gen: int = 0, depth: int = 0, repetitions: int = 5) -> list[float]:
    """Tokens per second of reading ``n_prompt`` or decoding ``n_gen`` random tokens, one number per repetition.

    Args:
        engine: an open model; what its cache holds is forgotten.
        n_prompt: tokens read in batches of ``n_batch``.
        n_gen: tokens decoded one by one after them, without sampling.
        depth: tokens put into the cache before the clock starts.
        repetitions: counted runs; one more comes first as a warm-up.

    Raises:
        ContextFullError: ``depth + n_prompt + n_gen`` exceed the context.
        ModelError: the model only embeds.
        ParameterError: there is nothing to measure, or a count is out of its range.
    """
    if min(n_prompt, n_gen, depth) < 0 or n_prompt + n_gen < 1 or repetitions < 1:
        raise ParameterError(
            f"n_prompt + n_gen and repetitions must be 1 or more, depth 0 or more; got {n_prompt}, {n_gen}, "
            f"{repetitions} and {depth}"
        )
    if not engine.model.shape.n_vocab:
        raise ModelError(f"{engine.file.path}: {engine.metadata.architecture} only embeds; bench measures generation")
    random = np.random.default_rng(SEED)
    n_vocab = engine.model.shape.n_vocab
    rates = []
    for _ in range(repetitions + 1):
        before = random.integers(0, n_vocab, depth).tolist()
        prompt = random.integers(0, n_vocab, n_prompt).tolist()
        generated = random.integers(0, n_vocab, n_gen).tolist()
        engine.reset()
        if before:
            engine.advance(before)
        began = time.perf_counter()
        if prompt:
            engine.advance(before + prompt)
        for token in generated:
            engine.extend(token)
        rates.append((n_prompt + n_gen) / (time.perf_counter() - began))
    return rates[1:]
