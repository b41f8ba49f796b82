"""Tokens, logits and text from a model file.  Usage: python library.py MODEL.gguf"""

import sys

from pyggml.engine import Engine, EngineConfig
from pyggml.sampling import SamplingParams

with Engine(sys.argv[1], EngineConfig(n_ctx=512)) as engine:
    ids = engine.tokenizer.encode("The capital of France is")
    logits = engine.logits(ids)  # numpy, float32, (1, n_vocab)
    for token in logits[0].argsort()[::-1][:3]:
        print(f"{logits[0, token]:8.3f}  {engine.tokenizer.decode([int(token)])!r}")

    generation = engine.generate(ids, SamplingParams(temperature=0.7, seed=1), max_tokens=32)
    for piece in generation:  # each step computes one token
        print(piece.text, end="", flush=True)
    stats = generation.stats
    print(f"\n{stats.eval_rate:.1f} tokens/s; {stats.cached_tokens} of {stats.prompt_tokens} prompt tokens were cached")
