"""Speed: what ``pyggml bench`` runs."""

import time
from random import Random

import numpy as np

from pyggml.batch import Batch
from pyggml.errors import ModelError, ParameterError

from .engine import Engine

__all__ = ["measure", "measure_parallel"]

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
    random = Random(SEED)  # numpy's brings OpenSSL along, and the peak memory is reported
    vocabulary = range(engine.model.shape.n_vocab)
    rates = []
    for _ in range(repetitions + 1):
        before = random.choices(vocabulary, k=depth)
        prompt = random.choices(vocabulary, k=n_prompt)
        generated = random.choices(vocabulary, k=n_gen)
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


def measure_parallel(
    engine: Engine, *, n_sequences: int, n_prompt: int, n_gen: int, repetitions: int = 5
) -> tuple[list[float], list[float]]:
    """Tokens per second of several sequences together, without sampling, as llama-batched-bench counts them.

    Args:
        engine: an open model with room for so many sequences; what its cache holds is forgotten.
        n_sequences: sequences, each with a prompt of its own.
        n_prompt: tokens of each prompt, read in batches of ``n_batch`` over all sequences.
        n_gen: tokens decoded of each, one of every sequence in a batch.
        repetitions: counted runs; one more comes first as a warm-up.

    Returns:
        Rates of reading and of decoding, over all sequences, one number each per repetition.

    Raises:
        ModelError: the model only embeds.
        ParameterError: a count is out of its range, or the engine has not so many sequences.
    """
    if min(n_sequences, n_prompt, n_gen, repetitions) < 1:
        raise ParameterError(
            f"n_sequences, n_prompt, n_gen and repetitions must be 1 or more; got {n_sequences}, {n_prompt}, {n_gen} "
            f"and {repetitions}"
        )
    if n_sequences > engine.config.n_parallel or n_prompt + n_gen > engine.n_ctx:
        raise ParameterError(
            f"{n_sequences} sequences of {n_prompt + n_gen} tokens need n_parallel={n_sequences} and "
            f"n_ctx={n_prompt + n_gen}; the engine has {engine.config.n_parallel} and {engine.n_ctx}"
        )
    if not engine.model.shape.n_vocab:
        raise ModelError(f"{engine.file.path}: {engine.metadata.architecture} only embeds; bench measures generation")
    random = Random(SEED)
    vocabulary, decoder = range(engine.model.shape.n_vocab), engine.scheduler.decoder
    sequences = np.arange(n_sequences, dtype=np.int32)
    reading, decoding = [], []
    for _ in range(repetitions + 1):
        engine.reset()
        tokens = np.array(random.choices(vocabulary, k=n_sequences * n_prompt), np.int32)
        seq_ids, positions = np.repeat(sequences, n_prompt), np.tile(np.arange(n_prompt, dtype=np.int32), n_sequences)
        began = time.perf_counter()
        for begin in range(0, tokens.size, engine.config.n_batch):
            part = slice(begin, begin + engine.config.n_batch)
            last = np.flatnonzero(positions[part] == n_prompt - 1).astype(np.int32)
            decoder.run(Batch(tokens[part], positions[part], seq_ids[part], last))
        reading.append(tokens.size / (time.perf_counter() - began))
        began = time.perf_counter()
        for position in range(n_prompt, n_prompt + n_gen):
            tokens = np.array(random.choices(vocabulary, k=n_sequences), np.int32)
            decoder.run(Batch(tokens, np.full(n_sequences, position, np.int32), sequences, sequences))
        decoding.append(n_sequences * n_gen / (time.perf_counter() - began))
        for seq_id in range(n_sequences):  # the scheduler knows nothing of these
            engine.cache.remove(seq_id, 0)
    return reading[1:], decoding[1:]
