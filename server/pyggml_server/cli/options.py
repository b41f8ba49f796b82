"""Options that several commands share: how the engine is set up."""

from collections.abc import Callable
from typing import Any

import click

from pyggml_server.config import Config

__all__ = ["engine_config", "engine_options", "parse_cache_type"]

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")

_OPTIONS = (
    click.option("-t", "--threads", "n_threads", type=click.IntRange(1), help="CPU threads [one per physical core]"),
    click.option("--device", default="CPU", show_default=True, help="Device to run on; `gpu`: the best one."),
    click.option("-b", "--batch", "n_batch", type=click.IntRange(1), default=512, show_default=True,
                 help="Tokens computed at once while a prompt is read."),
    click.option("--flash-attn/--no-flash-attn", default=None, help="Fused attention [when the device can]"),
    click.option("--cache-type-k", type=click.Choice(CACHE_TYPES), default="f16", show_default=True,
                 help="Type of cached keys."),
    click.option("--cache-type-v", type=click.Choice(CACHE_TYPES), default="f16", show_default=True,
                 help="Type of cached values."),
)  # fmt: skip


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of :func:`engine_config` to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def parse_cache_type(name: str) -> Any:
    """``q8_0`` as the library's type."""
    from pyggml.tensor import DType

    return DType[name.upper()]


def engine_config(
    *,
    n_ctx: int,
    n_threads: int | None,
    device: str,
    n_batch: int,
    flash_attn: bool | None,
    cache_type_k: str,
    cache_type_v: str,
) -> Any:
    """An :class:`pyggml.engine.EngineConfig`. The library is imported here, so that ``--help`` stays quick."""
    from pyggml.engine import EngineConfig

    return EngineConfig(
        n_ctx=n_ctx,
        n_batch=n_batch,
        n_threads=n_threads,
        device=device,
        flash_attn=flash_attn,
        type_k=parse_cache_type(cache_type_k),
        type_v=parse_cache_type(cache_type_v),
        cache_dir=Config.from_environment().models / ".pyggml" / "tokenizers",
    )
