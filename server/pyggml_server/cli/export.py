"""``pyggml export``."""

import secrets
import sys
from pathlib import Path

import click

from pyggml_server.cli.progress import show_progress
from pyggml_server.cli.storing import open_store
from pyggml_server.names import Name
from pyggml_server.store import export_model

__all__ = ["export"]


@click.command()
@click.argument("model")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
def export(model: str, file: Path) -> None:
    """Write a model into one tar archive (FILE - means standard output)."""
    store, name = open_store(), Name.parse(model)
    with show_progress() as report:
        if str(file) == "-":
            export_model(store, name, sys.stdout.buffer, report)
            return
        temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}.tmp")
        try:
            with temporary.open("xb") as target:
                export_model(store, name, target, report)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
