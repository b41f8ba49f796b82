"""pyggml against llama.cpp on the same file, interleaved: A B A B ..., the ratio pair by pair.

    python benchmarks/compare.py --llama-bench PATH MODEL.gguf [MODEL.gguf ...]
    python benchmarks/compare.py --llama-batched-bench PATH -s 8 -p 128 -n 64 MODEL.gguf [MODEL.gguf ...]

Each pair runs both programs once as whole processes with the same threads, batch, cache types and flash attention; a
pair's ratio is pyggml's median over llama.cpp's mean of the same kind of test. What counts is the median of the ratios:
speeds of one run against those of another say nothing on a shared machine.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

Row = tuple[str, float, int]  # test, tokens per second, peak bytes


def run(command: Sequence[str]) -> tuple[Any, int]:
    """The JSON that a command prints, and the peak memory of its process in bytes."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(write, 1)
        os.close(read)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.execvp(command[0], list(command))
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        raise SystemExit(f"failed: {' '.join(command)}")
    scale = 1 if sys.platform == "darwin" else 1024
    return json.loads(text), usage.ru_maxrss * scale


def run_pyggml(args: argparse.Namespace, model: str, test: tuple[int, int]) -> Row:
    """One process of ``pyggml bench``."""
    prompt, generate = test
    command = [*args.pyggml.split(), "bench", model, "--json", "-t", str(args.threads), "-r", str(args.repetitions)]
    command += ["-p", str(prompt), "-n", str(generate), "-d", str(args.depth)]
    command += ["--flash-attn" if args.flash_attn else "--no-flash-attn"]
    document, peak = run(command)
    (result,) = document["results"]
    return result["test"], result["mean"], peak


def run_llama(args: argparse.Namespace, model: str, test: tuple[int, int]) -> Row:
    """One process of ``llama-bench``."""
    prompt, generate = test
    command = [args.llama_bench, "-m", model, "-o", "json", "-t", str(args.threads), "-r", str(args.repetitions)]
    command += ["-p", str(prompt), "-n", str(generate), "-d", str(args.depth), "-fa", "1" if args.flash_attn else "0"]
    document, peak = run(command)
    (result,) = document
    return "", result["avg_ts"], peak


def run_pyggml_sequences(args: argparse.Namespace, model: str, test: tuple[int, int]) -> Row:
    """One process of ``pyggml bench --sequences``: decoding."""
    command = [*args.pyggml.split(), "bench", model, "--json", "-t", str(args.threads), "-r", str(args.repetitions)]
    command += ["-p", str(args.n_prompt), "-n", str(args.n_gen), "-s", str(args.sequences)]
    command += ["--flash-attn" if args.flash_attn else "--no-flash-attn"]
    document, peak = run(command)
    result = document["results"][1]
    return result["test"], result["mean"], peak


def run_llama_sequences(args: argparse.Namespace, model: str, test: tuple[int, int]) -> Row:
    """One process of ``llama-batched-bench``, each sequence in a stream of its own, as it does by default."""
    n_ctx = args.sequences * (args.n_prompt + args.n_gen)
    command = [args.llama_batched_bench, "-m", model, "--output-format", "jsonl", "-t", str(args.threads)]
    command += ["-npp", str(args.n_prompt), "-ntg", str(args.n_gen), "-npl", str(args.sequences), "-c", str(n_ctx)]
    command += ["-fa", "on" if args.flash_attn else "off"]
    document, peak = run(command)
    return "", document["speed_tg"], peak


def compare(args: argparse.Namespace, model: str, test: tuple[int, int]) -> None:
    """Print one row: medians of both, the median ratio with its range, peak memory of both."""
    ours, theirs = [], []
    for pair in range(args.pairs):
        order = [(ours, run_pyggml), (theirs, run_llama)]
        if args.sequences > 1:
            order = [(ours, run_pyggml_sequences), (theirs, run_llama_sequences)]
        for into, runner in order if pair % 2 == 0 else reversed(order):
            into.append(runner(args, model, test))
    ratios = [a[1] / b[1] for a, b in zip(ours, theirs, strict=True)]
    print(
        f"| {Path(model).name} | {ours[0][0]} | {median(r[1] for r in ours):.1f} "
        f"| {median(r[1] for r in theirs):.1f} | **{median(ratios):.3f}** | {min(ratios):.3f} to {max(ratios):.3f} "
        f"| {median(r[2] for r in ours) / 2**20:.0f} | {median(r[2] for r in theirs) / 2**20:.0f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="GGUF files; both programs get the same path")
    parser.add_argument("--llama-bench", help="path of llama-bench")
    parser.add_argument("--llama-batched-bench", help="path of llama-batched-bench, for --sequences")
    parser.add_argument("-s", "--sequences", type=int, default=1, help="sequences decoding together")
    parser.add_argument("--pyggml", default=f"{sys.executable} -m pyggml_server.cli.main", help="how to run pyggml")
    parser.add_argument("-p", "--n-prompt", type=int, default=512)
    parser.add_argument("-n", "--n-gen", type=int, default=128)
    parser.add_argument("-d", "--depth", type=int, default=0)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-r", "--repetitions", type=int, default=2, help="runs inside one process")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--flash-attn", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    if (args.llama_batched_bench if args.sequences > 1 else args.llama_bench) is None:
        parser.error("--llama-batched-bench is needed with --sequences, else --llama-bench")
    print(f"| model | test | pyggml t/s | llama.cpp t/s | ratio | range of {args.pairs} pairs | MiB | MiB llama.cpp |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for model in args.models:
        tests = ((args.n_prompt, 0), (0, args.n_gen)) if args.sequences == 1 else ((0, args.n_gen),)
        for test in tests:
            if any(test):
                compare(args, model, test)


if __name__ == "__main__":
    main()
