"""``pyggml env``."""

import json
import os
from collections.abc import Sequence
from typing import Any

import click

from pyggml_server.config import SETTINGS, UNUSED, Config, Host, Setting, find_unused, format_duration

__all__ = ["env"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--unused", is_flag=True, help="Print Ollama's variables that mean nothing here, with the reason.")
def env(as_json: bool, unused: bool) -> None:
    """Print every environment variable that is read: its value in use, and what it does.

    A value that cannot be used is an error, here as when the server starts.
    """
    config = Config.from_environment()
    if unused:
        rows = [(name, reason) for name, reason in UNUSED.items()]
        click.echo(json.dumps(dict(rows), indent=2) if as_json else _table(rows))
        return
    values = {setting.variable: _text(setting, getattr(config, setting.field)) for setting in SETTINGS}
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    lines = []
    for setting in SETTINGS:
        mark = "" if os.environ.get(setting.variable, "").strip() else " (default)"
        lines.append((setting.variable, f"{values[setting.variable] or '-'}{mark}", setting.help))
    click.echo(_table(lines))
    for name, reason in find_unused(os.environ).items():
        click.echo(f"{name} is set and means nothing here: {reason}", err=True)


def _text(setting: Setting, value: Any) -> str:
    """A value as it could be written into the variable; secrets stay secret."""
    if value is None:  # what the default stands for, or no limit
        return setting.default if setting.parse(setting.default) is None else "0"
    if isinstance(value, float):
        return format_duration(value)
    if setting.field == "api_key" and value:
        return "***"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return value.url if isinstance(value, Host) else str(value)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    )
