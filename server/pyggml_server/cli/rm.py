"""``pyggml rm``."""

import click

from pyggml_server.config import Config
from pyggml_server.names import Name
from pyggml_server.store import Store

__all__ = ["remove"]


@click.command("rm")
@click.argument("names", nargs=-1, required=True)
def remove(names: tuple[str, ...]) -> None:
    """Delete models, and the files that no other model uses."""
    store = Store(Config.from_environment().models)
    for name in [Name.parse(text) for text in names]:
        click.echo(f"deleted '{store.remove(name).display}'")
