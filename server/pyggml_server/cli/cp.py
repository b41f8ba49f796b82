"""``pyggml cp``."""

import click

from pyggml_server.cli.storing import open_store
from pyggml_server.names import Name

__all__ = ["copy"]


@click.command("cp")
@click.argument("source")
@click.argument("destination")
def copy(source: str, destination: str) -> None:
    """Give a model a second name."""
    open_store().copy(Name.parse(source), Name.parse(destination))
    click.echo(f"copied '{source}' to '{destination}'")
