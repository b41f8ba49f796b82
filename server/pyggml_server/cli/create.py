"""``pyggml create``."""

from pathlib import Path
from typing import Any

import click

from pyggml_server.cli.following import follow
from pyggml_server.cli.progress import show_progress
from pyggml_server.cli.storing import open_store
from pyggml_server.errors import BadRequestError
from pyggml_server.modelfile import Modelfile, parse_modelfile
from pyggml_server.store import Report, Store, add_files, find_files

__all__ = ["create"]


@click.command()
@click.argument("model")
@click.option("-f", "--file", type=click.Path(dir_okay=False, path_type=Path), help="The Modelfile [./Modelfile].")
@click.option("-q", "--quantize", metavar="TYPE", help="Bring F16 or F32 weights to a type, such as q4_K_M.")
def create(model: str, file: Path | None, quantize: str | None) -> None:
    """Make a model from a Modelfile. Without one, from the files in the current folder."""
    path = file or Path("Modelfile")
    data = b"FROM ." if file is None and not path.exists() else path.read_bytes()
    modelfile = parse_modelfile(data)
    for warning in modelfile.warnings:
        click.echo(f"{path}: {warning}", err=True)
    request: dict[str, Any] = {**modelfile.request(), "model": model}
    store = open_store()
    with show_progress() as report:
        request |= _sources(store, modelfile, path.absolute().parent, report)
    if quantize is not None:
        request["quantize"] = quantize
    follow(lambda transfers: transfers.create(request))


def _sources(store: Store, modelfile: Modelfile, folder: Path, report: Report) -> dict[str, Any]:
    """What FROM and ADAPTER mean: names of models, or files, which are put among the blobs."""
    if modelfile.values("DRAFT"):
        raise BadRequestError(
            "DRAFT: a draft model cannot be stored; draft_num_predict drafts from the prompt, with any model"
        )
    names, files = list[str](), dict[str, Path]()
    for value in modelfile.values("FROM"):
        path = _local(value, folder)
        if path is None:
            names.append(value)
        else:
            files |= find_files(path)
    if len(names) > 1 or (names and files):
        raise BadRequestError(f"FROM names a model or files, not both or several models: {', '.join(names)}")
    adapters = dict[str, Path]()
    for value in modelfile.values("ADAPTER"):
        path = _local(value, folder)
        if path is None:
            raise BadRequestError(f"ADAPTER {value}: there is no such file")
        adapters |= find_files(path)
    found: dict[str, Any] = {"from": names[0]} if names else {"files": add_files(store, files, report)}
    if adapters:
        found["adapters"] = add_files(store, adapters, report)
    return found


def _local(value: str, folder: Path) -> Path | None:
    path = folder / Path(value).expanduser()
    if path.exists():
        return path
    if value.startswith(("/", "./", "../", "~")) or value.endswith(".gguf"):
        raise BadRequestError(f"{value}: there is no such file (looked for {path})")
    return None
