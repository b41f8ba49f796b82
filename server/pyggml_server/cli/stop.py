"""``pyggml stop``."""

import click

from pyggml_server.cli.client import ReplyError, open_client, request_json

__all__ = ["stop"]


@click.command()
@click.argument("models", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every model that is in memory.")
def stop(models: tuple[str, ...], everything: bool) -> None:
    """Put models out of the server's memory; answers under way are finished first."""
    if bool(models) == everything:
        raise click.UsageError("name the models to stop, or give --all")
    with open_client() as client:
        if everything:
            models = tuple(model["name"] for model in request_json(client, "GET", "/api/ps")["models"])
        for name in models:
            try:
                request_json(client, "POST", "/api/generate", model=name, keep_alive=0, stream=False)
            except ReplyError as error:
                if error.status == 404:
                    raise click.ClickException(f'couldn\'t find model "{name}" to stop') from error
                raise
