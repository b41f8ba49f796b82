"""``pyggml cp``."""

import click

from pyggml_server.config import Config
from pyggml_server.names import Name
from pyggml_server.store import Store

__all__ = ["copy"]


@click.command("cp")
@click.argument("source")
@click.argument("destination")
def copy(source: str, destination: str) -> None:
    """Give a model a second name."""
    Store(Config.from_environment().models).copy(Name.parse(source), Name.parse(destination))
    click.echo(f"copied '{source}' to '{destination}'")
