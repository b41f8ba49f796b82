"""What the engine saves: shared prefixes, snapshots, drafts, sequences together. Ratios of pyggml to itself.

    python benchmarks/engine.py MODEL.gguf [--only prefix snapshot drafts sequences memory]

Every comparison is interleaved within one process (A B A B ...) and the median of the pairs' ratios is printed.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from pyggml.engine import Engine, EngineConfig, PromptLookup, Request, Task, measure_parallel
from pyggml.sampling import SamplingParams
from pyggml.tensor import DType

GREEDY = SamplingParams(temperature=0)

# A workload where an answer mostly repeats the prompt: a text to be corrected.
SOURCE = """\
The harbour of the town was built in 1821 by fishermen who had lost their boats in a storm. They carried the stones from
the hills behind the church, three miles in every direction, and laid them one upon another until the wall was twice as
high as a man. In the first winter the sea broke through at the northern end. The fishermen came back in spring with
longer stones and a better plan: they left a gap in the middle, so that the water could run out as quickly as it had
come in. The gap is still there. Children jump over it in summer, and old people say that whoever falls into it will
never leave the town again.
""".replace("\n", " ")


def finish(engine: Engine, task: Task) -> Task:
    while not task.finished:
        engine.step()
    if task.error is not None:
        raise task.error
    return task


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def prompt(engine: Engine, n: int, seed: int) -> list[int]:
    ids: list[int] = np.random.default_rng(seed).integers(100, engine.model.shape.n_vocab - 100, n).tolist()
    return ids


def prefix(path: Path, args: argparse.Namespace) -> None:
    """The first token after a prefix of 2,048 tokens that another sequence holds, in decode steps."""
    with Engine(path, EngineConfig(n_ctx=2304, n_parallel=4, n_threads=args.threads)) as engine:
        shared = prompt(engine, 2048, 1)
        finish(engine, engine.submit(Request(shared, GREEDY, max_tokens=1)))
        ratios = []
        for pair in range(args.pairs):
            task = engine.submit(Request([*shared, 200 + pair], GREEDY, max_tokens=9, ignore_eos=True))
            first = timed(engine.step)
            steps = [timed(engine.step) for _ in range(8)]
            finish(engine, task)
            assert task.stats.cached_tokens == 2048
            ratios.append(first / median(steps))
        print(f"| first token after a shared prefix of 2,048 | {median(ratios):.2f} decode steps |", flush=True)


def snapshot(path: Path, args: argparse.Namespace) -> None:
    """The first token of a prompt of 2,048 tokens after a restart: snapshot against reading."""
    with tempfile.TemporaryDirectory() as folder:
        kept = EngineConfig(n_ctx=2304, n_threads=args.threads, snapshot_dir=Path(folder))
        plain = EngineConfig(n_ctx=2304, n_threads=args.threads)
        with Engine(path, kept) as engine:
            shared = prompt(engine, 2048, 1)
            finish(engine, engine.submit(Request(shared, GREEDY, max_tokens=1)))
        ratios, seconds = [], []
        for _ in range(args.pairs):
            spent = []
            for config in (plain, kept):
                with Engine(path, config) as engine:
                    engine.submit(Request([5, 6], GREEDY, max_tokens=1))
                    engine.step()  # warm
                    task = engine.submit(Request([*shared, 7], GREEDY, max_tokens=1))
                    spent.append(timed(lambda engine=engine, task=task: finish(engine, task)))  # type: ignore[misc]
            ratios.append(spent[0] / spent[1])
            seconds.append(spent[1])
        print(
            f"| 2,048 tokens after a restart, reading over snapshot "
            f"| {median(ratios):.0f} x ({median(seconds):.3f} s) |",
            flush=True,
        )


def drafts(path: Path, args: argparse.Namespace) -> None:
    """Decoding an answer that repeats the prompt: with drafts over without, equal tokens."""
    with Engine(path, EngineConfig(n_ctx=2048, n_threads=args.threads)) as engine:
        ids = engine.tokenizer.encode(f"Text:\n{SOURCE}\nThe same text, corrected:\n{SOURCE[:70]}")
        ratios, kept = [], 0.0
        for _ in range(args.pairs):
            rates, tokens = [], []
            for drafter in (None, PromptLookup()):
                request = Request(ids, GREEDY, max_tokens=120, ignore_eos=True, drafter=drafter)
                task = finish(engine, engine.submit(request))
                rates.append(len(task.generated) / task.stats.eval_seconds)
                tokens.append(task.generated)
                if drafter is not None:
                    kept = task.stats.accepted_tokens / max(1, task.stats.drafted_tokens)
            same = sum(a == b for a, b in zip(*tokens, strict=False))
            ratios.append(rates[1] / rates[0])
        print(
            f"| prompt lookup on correcting a text, over plain decoding | {median(ratios):.2f} x "
            f"({kept:.0%} of drafts accepted, first {same} of {len(tokens[0])} tokens equal) |",
            flush=True,
        )


def sequences(path: Path, args: argparse.Namespace) -> None:
    """Decoding 1 to 32 sequences together: tokens per second of all, relative to one; the cache's size."""
    one = 0.0
    for n in (1, 2, 4, 8, 16, 32):
        with Engine(path, EngineConfig(n_ctx=256, n_parallel=n, n_threads=args.threads)) as engine:
            _, rates = measure_parallel(
                engine, n_sequences=n, n_prompt=128, n_gen=32, repetitions=max(1, args.pairs // 2)
            )
            one = one or median(rates)
            print(
                f"| {n} sequences | {median(rates) / one:.2f} x one | cache {engine.cache.n_bytes / 2**20:.0f} MiB |",
                flush=True,
            )


def memory(path: Path, args: argparse.Namespace) -> None:
    """The cache in f16 and in q8_0."""
    sizes = []
    for dtype in (DType.F16, DType.Q8_0):
        with Engine(path, EngineConfig(n_ctx=4096, n_threads=args.threads, type_k=dtype, type_v=dtype)) as engine:
            sizes.append(engine.cache.n_bytes / 2**20)
    print(f"| cache of 4,096 tokens, f16 and q8_0 | {sizes[0]:.1f} and {sizes[1]:.1f} MiB |", flush=True)


PARTS = {part.__name__: part for part in (prefix, snapshot, drafts, sequences, memory)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    for model in args.models:
        print(f"\n{model.name}\n")
        for name in args.only:
            PARTS[name](model, args)


if __name__ == "__main__":
    sys.exit(main())
