"""``pyggml bench``."""

import json
import math
import platform
import resource
import sys
from typing import Any

import click

from pyggml import __version__
from pyggml_server.cli.find import find_model
from pyggml_server.cli.options import engine_config, engine_options

__all__ = ["bench"]


@click.command()
@click.argument("model")
@click.option(
    "-p", "--n-prompt", type=click.IntRange(0), default=512, show_default=True, help="Prompt tokens; 0: skip."
)
@click.option("-n", "--n-gen", type=click.IntRange(0), default=128, show_default=True, help="Tokens decoded; 0: skip.")
@click.option("-d", "--depth", type=click.IntRange(0), default=0, show_default=True,
              help="Tokens already in the cache when measuring begins.")  # fmt: skip
@click.option("-r", "--repetitions", type=click.IntRange(1), default=5, show_default=True)
@click.option("-s", "--sequences", type=click.IntRange(1), default=1, show_default=True,
              help="Sequences computed together; more than 1: of -p and -n tokens each.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every sample.")
@engine_options
def bench(
    model: str, n_prompt: int, n_gen: int, depth: int, repetitions: int, sequences: int, as_json: bool, **options: Any
) -> None:
    """Measure how fast MODEL reads a prompt and decodes, in tokens per second.

    One warm-up, then REPETITIONS runs of each test on random tokens, the cache emptied before each; as llama-bench does
    it. Reading DEPTH tokens into the cache is not counted.
    """
    if not n_prompt and not n_gen:
        raise click.UsageError("there is nothing to measure: both --n-prompt and --n-gen are 0")
    if sequences > 1 and (depth or not (n_prompt and n_gen)):
        raise click.UsageError("--sequences needs both --n-prompt and --n-gen, and no --depth")
    import numpy as np

    from pyggml.engine import Engine

    found = find_model(model)
    n_ctx = n_prompt + n_gen if sequences > 1 else depth + max(n_prompt, n_gen)
    config = engine_config(options, n_ctx=n_ctx, n_parallel=sequences)
    with Engine(found.path, config) as engine:
        measured = _measure(engine, n_prompt, n_gen, depth, repetitions, sequences)
        results = [
            {"test": test, "median": float(np.median(rates)), "mean": float(np.mean(rates)), "samples": rates}
            for test, rates in measured.items()
        ]
        document = {
            "model": found.label,
            "architecture": engine.metadata.architecture,
            "pyggml": __version__,
            "device": "+".join(backend.device.name for backend in engine.executor.backends),
            "description": engine.backends[0].device.description,
            "n_threads": engine.backends[-1].n_threads,
            "flash_attn": engine.flash_attn,
            "type_k": config.type_k.name.lower(),
            "type_v": config.type_v.name.lower(),
            "weights": engine.weights.summary(),
            "graph_reuse": engine.stats.reuse_rate,
            "python_share": engine.stats.python_share,
            "peak_rss_bytes": _peak_rss(),
            "results": results,
        }
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        _print(document)


def _measure(
    engine: Any, n_prompt: int, n_gen: int, depth: int, repetitions: int, sequences: int
) -> dict[str, list[float]]:
    """Rates by name of the test."""
    from pyggml.engine import measure, measure_parallel

    if sequences > 1:
        reading, decoding = measure_parallel(
            engine, n_sequences=sequences, n_prompt=n_prompt, n_gen=n_gen, repetitions=repetitions
        )
        return {f"pp{n_prompt} x {sequences}": reading, f"tg{n_gen} x {sequences}": decoding}
    found = {}
    for name, prompt, generate in (("pp", n_prompt, 0), ("tg", 0, n_gen)):
        if prompt or generate:
            test = f"{name}{prompt or generate}" + (f" @ d{depth}" if depth else "")
            found[test] = measure(engine, n_prompt=prompt, n_gen=generate, depth=depth, repetitions=repetitions)
    return found


def _peak_rss() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kilobytes


def _print(document: dict[str, Any]) -> None:
    click.echo(f"{'model':<28} {'device':<8} {'threads':>7} {'test':>14} {'t/s (median)':>14} {'± t/s':>8}")
    for result in document["results"]:
        samples, mean = result["samples"], result["mean"]
        spread = math.sqrt(sum((sample - mean) ** 2 for sample in samples) / max(len(samples) - 1, 1))
        click.echo(
            f"{document['model']:<28} {document['device']:<8} {document['n_threads']:>7} {result['test']:>14} "
            f"{result['median']:>14.2f} {spread:>8.2f}"
        )
    click.echo(
        f"\npyggml {document['pyggml']}, {document['description']}, {platform.system()} {platform.machine()}, "
        f"flash attention {'on' if document['flash_attn'] else 'off'}, "
        f"cache {document['type_k']}/{document['type_v']}, "
        f"graph reuse {document['graph_reuse']:.1%}, Python's share {document['python_share']:.1%}, "
        f"peak memory {document['peak_rss_bytes'] / 2**20:.0f} MiB"
    )
