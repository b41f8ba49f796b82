"""``pyggml``: the group of commands. Each lives in its own file, which is imported when the command is used."""

import errno
import sys
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final

import click

from pyggml import __version__
from pyggml.errors import PyggmlError
from pyggml_server.errors import ServerError

__all__ = ["COMMANDS", "main"]

COMMANDS: Final = MappingProxyType(
    {
        "run": ("pyggml_server.cli.run:run", "Answer a prompt, or talk to a model."),
        "pull": ("pyggml_server.cli.pull:pull", "Fetch a model into the store."),
        "push": ("pyggml_server.cli.push:push", "Send a model to a registry."),
        "create": ("pyggml_server.cli.create:create", "Make a model from a Modelfile."),
        "cp": ("pyggml_server.cli.cp:copy", "Give a model a second name."),
        "export": ("pyggml_server.cli.export:export", "Write a model into one archive."),
        "import": ("pyggml_server.cli.import_:import_archive", "Bring a model out of an archive."),
        "list": ("pyggml_server.cli.list:list_models", "List the models in the store."),
        "show": ("pyggml_server.cli.show:show", "Show what is inside a model."),
        "rm": ("pyggml_server.cli.rm:remove", "Delete models from the store."),
        "serve": ("pyggml_server.cli.serve:serve", "Serve models as Ollama does."),
        "ps": ("pyggml_server.cli.ps:ps", "List the models in the server's memory."),
        "stop": ("pyggml_server.cli.stop:stop", "Put models out of the server's memory."),
        "env": ("pyggml_server.cli.env:env", "Print the environment variables and their values."),
        "fit": ("pyggml_server.cli.fit:fit", "Measure the memory that a model would take."),
        "bench": ("pyggml_server.cli.bench:bench", "Measure prefill and decode speed."),
        "help": ("pyggml_server.cli.help:show_help", "Tell how a command is used."),
    }
)
"""Command → where it is (module:function), help in one line. The order is that of ``pyggml --help``."""

_ALIASES: Final = MappingProxyType({"ls": "list", "start": "serve"})


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for, and tells errors in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None for an unknown one."""
        entry = COMMANDS.get(_ALIASES.get(cmd_name, cmd_name))
        if entry is None:
            return None
        module, _, function = entry[0].partition(":")
        command = getattr(import_module(module), function)
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry[0]} is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table, so that --help imports none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; the errors that are meant for people become one line and exit status 1."""
        try:
            return super().invoke(ctx)
        except (PyggmlError, ServerError) as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # click ends quietly when the reader of a pipe has gone
            raise click.ClickException(_describe(error)) from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-v", "--version", prog_name="pyggml")
def main() -> None:
    """Run language models with ggml."""


def _describe(error: OSError) -> str:
    if error.filename is None or error.strerror is None:
        return str(error) or type(error).__name__
    return f"{error.filename}: {error.strerror}"


if __name__ == "__main__":
    sys.exit(main())
