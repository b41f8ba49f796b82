"""``pyggml import``."""

import sys
from pathlib import Path

import click

from pyggml_server.cli.progress import show_progress
from pyggml_server.cli.storing import open_store
from pyggml_server.names import Name
from pyggml_server.store import import_model

__all__ = ["import_archive"]


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--as", "name", metavar="NAME", help="Name in the store, instead of the one it had.")
def import_archive(file: Path, name: str | None) -> None:
    """Bring a model out of an archive that `pyggml export` wrote (FILE - means standard input)."""
    store, target = open_store(), Name.parse(name) if name is not None else None
    with show_progress() as report:
        if str(file) == "-":
            model = import_model(store, sys.stdin.buffer, report, name=target)
        else:
            with file.open("rb") as source:
                model = import_model(store, source, report, name=target)
    click.echo(f"{model.name.display}: {model.details.parameter_size}, {model.digest[:12]}")
