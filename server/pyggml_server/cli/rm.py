"""``pyggml rm``."""

from contextlib import suppress

import click

from pyggml_server.cli.client import open_client, request_json
from pyggml_server.cli.storing import open_store
from pyggml_server.config import Config
from pyggml_server.errors import ServerError
from pyggml_server.names import Name

__all__ = ["remove"]

_PATIENCE = 10.0


@click.command("rm")
@click.argument("names", nargs=-1, required=True)
def remove(names: tuple[str, ...]) -> None:
    """Delete models, and the files that no other model uses. A server that runs here puts them out of its memory."""
    config = Config.from_environment()
    store = open_store(config)
    for name in [Name.parse(text) for text in names]:
        if store.has(name):
            _unload(config, store.manifests.resolve(name))
        click.echo(f"deleted '{store.remove(name).display}'")


def _unload(config: Config, name: Name) -> None:
    """Tell the server of this machine, if there is one: files that it has open would stay on the disk."""
    if not config.host.is_here:
        return  # another machine's server has another store
    with suppress(ServerError), open_client(config) as client:
        client.timeout = _PATIENCE
        loaded = request_json(client, "GET", "/api/ps")["models"]
        if any(model["name"] == name.display for model in loaded):
            request_json(client, "POST", "/api/generate", model=name.display, keep_alive=0, stream=False)
