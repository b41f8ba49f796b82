"""``pyggml ps``."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from pyggml_server.cli.client import open_client, request_json
from pyggml_server.store import human_bytes

__all__ = ["ps"]

_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
_FOREVER = 100 * 365 * 86400


@click.command()
def ps() -> None:
    """List the models that are in memory."""
    with open_client() as client:
        models = request_json(client, "GET", "/api/ps")["models"]
    now = datetime.now(UTC)
    rows = [("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL")]
    for model in models:
        rows.append(
            (
                model["name"],
                model.get("digest", "").removeprefix("sha256:")[:12],
                human_bytes(model.get("size", 0)),
                processor(model),
                str(model.get("context_length", "")),
                until(model, now),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        click.echo("    ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def processor(model: Mapping[str, Any]) -> str:
    """``100% GPU``, ``100% CPU``, or both parts."""
    size, vram = model.get("size", 0), model.get("size_vram", 0)
    if vram <= 0 or size <= 0:
        return "100% CPU"
    if vram >= size:
        return "100% GPU"
    cpu = round(100 * (size - vram) / size)
    return f"{cpu}%/{100 - cpu}% CPU/GPU"


def until(model: Mapping[str, Any], now: datetime) -> str:
    """When it goes: ``4 minutes from now``, ``Forever``, ``Stopping...``."""
    if model.get("state") == "loading":
        return "Loading..."
    text = model.get("expires_at")
    if not text:
        return "Forever"
    left = (datetime.fromisoformat(text) - now).total_seconds()
    if left > _FOREVER:
        return "Forever"
    if left <= 0 or model.get("state") == "stopping":
        return "Stopping..."
    for length, unit in _UNITS:
        count = int(left // length)
        if count >= 1:
            return f"{count} {unit}{'s' if count > 1 else ''} from now"
    return "Less than a second"
