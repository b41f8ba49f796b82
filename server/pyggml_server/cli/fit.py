"""``pyggml fit``."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from pyggml_server.cli.find import find_model
from pyggml_server.cli.options import engine_config, engine_options

__all__ = ["fit"]

DOES_NOT_FIT = 3


@click.command()
@click.argument("model")
@click.option("--num-ctx", type=click.IntRange(1), help="Context size in tokens [the model's parameter, or 4096]")
@click.option(
    "-np", "--n-parallel", type=click.IntRange(1), default=1, show_default=True, help="Sequences computed together."
)
@click.option("--layers", "by_layer", is_flag=True, help="Print each layer, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@engine_options
def fit(model: str, num_ctx: int | None, n_parallel: int, by_layer: bool, as_json: bool, **options: Any) -> None:
    """Measure what MODEL would take on its devices, without loading it.

    Weights, KV cache and the graphs' memory are laid out as if they were loaded. The exit status is 0 when everything
    fits, and 3 when it does not.
    """
    from pyggml.engine import fit as measure

    found = find_model(model)
    n_ctx = int(num_ctx or found.params.get("num_ctx") or 4096)
    config = engine_config(options, n_ctx=n_ctx, n_parallel=n_parallel)
    result = measure(found.path, config)
    document = _document(found.label, config, result)
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        for line in _lines(document, by_layer=by_layer):
            click.echo(line)
    if not result.fits:
        sys.exit(DOES_NOT_FIT)


def _document(label: str, config: Any, result: Any) -> dict[str, Any]:
    placement = result.measured.placement
    names = [device.name for device in placement.devices]
    return {
        "model": label,
        "fits": result.fits,
        "n_ctx": result.measured.n_ctx,
        "n_parallel": config.n_parallel,
        "n_batch": config.n_batch,
        "flash_attn": result.measured.flash_attn,
        "type_k": config.type_k.name.lower(),
        "type_v": config.type_v.name.lower(),
        "layers": result.n_layers,
        "n_gpu_layers": placement.n_gpu_layers,
        "most_gpu_layers": result.most_layers,
        "devices": [
            {
                "name": each.device.name,
                "description": each.device.description,
                "layers": each.layers,
                "weights": each.need.weights,
                "kv_cache": each.need.cache,
                "compute": each.need.compute,
                "needed": each.need.total,
                "free": each.free,
                "total": each.total,
                "fits": each.fits,
            }
            for each in result.devices
        ],
        "by_layer": [
            {"layer": "output" if i == result.n_layers - 1 else i, "bytes": dict(zip(names, row, strict=True))}
            for i, row in enumerate(result.measured.layers)
        ],
    }


def _lines(document: dict[str, Any], *, by_layer: bool) -> Iterator[str]:
    d = document
    yield (
        f"{d['model']}: {d['layers']} layers with the output, context {d['n_ctx']} × {d['n_parallel']}, batch "
        f"{d['n_batch']}, cache {d['type_k']}/{d['type_v']}, flash attention {'on' if d['flash_attn'] else 'off'}"
    )
    yield ""
    yield f"{'MiB':<10}{'layers':>8}{'weights':>10}{'KV cache':>10}{'compute':>10}{'needed':>10}{'free':>10}"
    for device in d["devices"]:
        sizes = (device[key] for key in ("weights", "kv_cache", "compute", "needed", "free"))
        yield f"{device['name']:<10}{device['layers']:>8}" + "".join(f"{_mib(n):>10}" for n in sizes)
    if by_layer:
        yield ""
        yield f"{'layer':<10}{'device':<10}{'weights and KV cache, MiB':>28}"
        for row in d["by_layer"]:
            for name, n in row["bytes"].items():
                if n:
                    yield f"{row['layer']!s:<10}{name:<10}{_mib(n):>28}"
    yield ""
    yield from _verdict(d)


def _verdict(document: dict[str, Any]) -> Iterator[str]:
    """Whether it fits, and which option changes what."""
    d = document
    if d["fits"]:
        yield "It fits."
    for device in d["devices"]:
        if not device["fits"]:
            yield f"It does not fit: {device['name']} lacks {_mib(device['needed'] - device['free'])} MiB."
    if d["most_gpu_layers"] is not None:
        yield f"{d['most_gpu_layers']} of {d['layers']} layers would fit: --n-gpu-layers {d['most_gpu_layers']}"
    if not d["fits"] or 0 < d["n_gpu_layers"] < d["layers"]:
        yield (
            "Smaller: the KV cache by --num-ctx, --n-parallel, or --cache-type-k and --cache-type-v q8_0; compute by "
            "--batch; weights on a device by --n-gpu-layers, --override-tensor or --cpu-moe."
        )


def _mib(n: int) -> str:
    return f"{n / 2**20:,.1f}"
