"""``pyggml help``."""

import click

__all__ = ["show_help"]


@click.command("help")
@click.argument("command", required=False)
@click.pass_context
def show_help(context: click.Context, command: str | None) -> None:
    """Tell what commands there are, or how COMMAND is used."""
    parent = context.parent
    if parent is None or not isinstance(parent.command, click.Group):
        raise click.UsageError("help belongs to the commands of pyggml")
    if command is None:
        click.echo(parent.get_help())
        return
    found = parent.command.get_command(parent, command)
    if found is None:
        raise click.UsageError(f"No such command {command!r}.")
    with click.Context(found, info_name=command, parent=parent) as inner:
        click.echo(found.get_help(inner))
