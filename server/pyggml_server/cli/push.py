"""``pyggml push``."""

import click

from pyggml_server.cli.following import follow
from pyggml_server.names import DEFAULT_HOST, Name

__all__ = ["push"]


@click.command()
@click.argument("model")
@click.option("--insecure", is_flag=True, help="Allow HTTP, and certificates that nobody vouches for.")
def push(model: str, *, insecure: bool) -> None:
    """Send a model to the registry that its name tells (HOST/NAMESPACE/MODEL:TAG)."""
    name = Name.parse(model)
    follow(lambda transfers: transfers.push(model, insecure=insecure))
    if name.host.lower() == DEFAULT_HOST:
        click.echo(f"You can find it at: https://ollama.com/{name.namespace}/{name.model}")
