"""Options that several commands share: how the engine is set up."""

from collections.abc import Callable, Mapping
from typing import Any

import click

from pyggml_server.config import Config

__all__ = ["ENGINE_OPTIONS", "engine_config", "engine_options", "parse_cache_type"]

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
MIB = 2**20


def _proportions(ctx: click.Context, param: click.Parameter, value: str) -> tuple[float, ...]:
    """``3,1`` as numbers."""
    try:
        return tuple(float(part) for part in value.split(",")) if value else ()
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no list of numbers such as 3,1", ctx, param) from error


def _overrides(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[tuple[str, str]]:
    """``PATTERN=DEVICE`` as pairs."""
    pairs = []
    for value in values:
        pattern, _, device = value.rpartition("=")
        if not pattern or not device:
            raise click.BadParameter(
                f"{value!r} is not of the form PATTERN=DEVICE, such as 'ffn_.*_exps=CPU'", ctx, param
            )
        pairs.append((pattern, device))
    return pairs


_OPTIONS = (
    click.option("-t", "--threads", "n_threads", type=click.IntRange(1), help="CPU threads [one per physical core]"),
    click.option("--device", "devices", multiple=True, metavar="NAME",
                 help="Device to run on [CPU]; `gpu`: the best one; `gpus`: all. Given several times, or with one of "
                      "the options below, the devices share the layers. `rpc://host:port`: those of an RPC server, "
                      "only in a network that you trust: it has no protection."),
    click.option("-ngl", "--n-gpu-layers", type=click.IntRange(-1),
                 help="Layers on the devices, the last ones first, the output counted; -1: as many as fit."),
    click.option("-ts", "--tensor-split", default="", callback=_proportions, metavar="N,N,...",
                 help="Layers per device, as proportions [by free memory]"),
    click.option("-ot", "--override-tensor", "tensor_overrides", multiple=True, callback=_overrides,
                 metavar="PATTERN=DEVICE",
                 help="Weights whose name the regular expression finds live on that device."),
    click.option("--cpu-moe", is_flag=True, help="Experts stay on the CPU."),
    click.option("--n-cpu-moe", type=click.IntRange(0), default=0, metavar="N",
                 help="Experts of the first N layers stay on the CPU."),
    click.option("--kv-offload/--no-kv-offload", default=True, help="Cache on the layer's device, or on the CPU."),
    click.option("--memory-margin", type=click.IntRange(0), default=512, show_default=True, metavar="MIB",
                 help="What stays free on each device when layers are placed automatically."),
    click.option("-b", "--batch", "n_batch", type=click.IntRange(1), default=512, show_default=True,
                 help="Tokens computed at once while a prompt is read."),
    click.option("--flash-attn/--no-flash-attn", default=None, help="Fused attention [when the devices can]"),
    click.option("--cache-type-k", type=click.Choice(CACHE_TYPES), default="f16", show_default=True,
                 help="Type of cached keys."),
    click.option("--cache-type-v", type=click.Choice(CACHE_TYPES), default="f16", show_default=True,
                 help="Type of cached values."),
)  # fmt: skip

ENGINE_OPTIONS = (
    "n_threads", "devices", "n_gpu_layers", "tensor_split", "tensor_overrides", "cpu_moe", "n_cpu_moe", "kv_offload",
    "memory_margin", "n_batch", "flash_attn", "cache_type_k", "cache_type_v",
)  # fmt: skip
"""The names under which a command gets the options of :func:`engine_options`."""


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of :func:`engine_config` to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def parse_cache_type(name: str) -> Any:
    """``q8_0`` as the library's type."""
    from pyggml.tensor import DType

    return DType[name.upper()]


def engine_config(options: Mapping[str, Any], *, n_ctx: int, n_parallel: int = 1) -> Any:
    """An :class:`pyggml.engine.EngineConfig`. The library is imported here, so that ``--help`` stays quick.

    Args:
        options: what the command got, :data:`ENGINE_OPTIONS` among it.
        n_ctx: positions per sequence.
        n_parallel: sequences.
    """
    from pyggml.engine import EngineConfig

    chosen = {name: options[name] for name in ENGINE_OPTIONS}
    for name in ("k", "v"):
        chosen[f"type_{name}"] = parse_cache_type(chosen.pop(f"cache_type_{name}"))
    chosen["memory_margin"] *= MIB
    devices = [name for given in chosen["devices"] for name in given.split(",")]
    if len(devices) == 1 and ":" not in devices[0] and devices[0].lower() != "gpus":
        chosen["device"] = devices.pop()
    chosen["devices"] = tuple(devices)
    cache_dir = Config.from_environment().models / ".pyggml" / "tokenizers"
    return EngineConfig(n_ctx=n_ctx, n_parallel=n_parallel, cache_dir=cache_dir, **chosen)
