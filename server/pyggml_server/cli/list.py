"""``pyggml list``."""

from datetime import UTC, datetime

import click

from pyggml_server.cli.storing import open_store
from pyggml_server.store import human_bytes

__all__ = ["list_models"]

_UNITS = ((365 * 86400, "year"), (30 * 86400, "month"), (7 * 86400, "week"), (86400, "day"), (3600, "hour"))


@click.command("list")
@click.argument("prefix", required=False, default="")
def list_models(prefix: str) -> None:
    """List the models in the store, the newest first; PREFIX leaves only the names that begin with it."""
    now = datetime.now(UTC)
    rows = [("NAME", "ID", "SIZE", "MODIFIED")]
    for entry in open_store().list():
        name = entry.name.display
        if name.lower().startswith(prefix.lower()):
            rows.append(
                (name, entry.digest[:12], human_bytes(entry.size), _ago((now - entry.modified).total_seconds()))
            )
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        click.echo("    ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _ago(seconds: float) -> str:
    """How long ago, in the largest whole unit: ``5 minutes ago``."""
    for length, unit in (*_UNITS, (60, "minute"), (1, "second")):
        count = int(seconds // length)
        if count >= 1:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "now"
