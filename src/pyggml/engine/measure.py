"""Speed: what ``pyggml bench`` runs."""

import time

import numpy as np

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
    """
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
