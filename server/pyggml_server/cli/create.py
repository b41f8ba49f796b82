"""``pyggml create``."""

from pathlib import Path
from typing import Any

import click

from pyggml_server.cli.following import follow
from pyggml_server.cli.progress import show_progress
from pyggml_server.cli.storing import open_store
from pyggml_server.errors import BadRequestError
from pyggml_server.modelfile import Modelfile, parse_modelfile, read_modelfile
from pyggml_server.names import Name
from pyggml_server.store import Report, Store, add_files, find_files

__all__ = ["create"]


@click.command()
@click.argument("model")
@click.option("-f", "--file", type=click.Path(dir_okay=False, path_type=Path), help="The Modelfile [./Modelfile].")
@click.option("-q", "--quantize", metavar="TYPE", help="Bring F16 or F32 weights to a type, such as q4_K_M.")
@click.option("--draft-quantize", metavar="TYPE", help="The same for the draft model.")
def create(model: str, file: Path | None, quantize: str | None, draft_quantize: str | None) -> None:
    """Make a model from a Modelfile. Without one, from the files in the current folder."""
    path = file or Path("Modelfile")
    bare = file is None and not path.exists()
    modelfile = parse_modelfile(b"FROM .") if bare else read_modelfile(path)
    for warning in modelfile.warnings:
        click.echo(f"{path}: {warning}", err=True)
    request: dict[str, Any] = {**modelfile.request(), "model": model}
    store = open_store()
    with show_progress() as report:
        request |= _sources(store, modelfile, path.absolute().parent, report)
    if quantize is not None:
        request["quantize"] = quantize
    if draft_quantize is not None:
        request["draft_quantize"] = draft_quantize
    follow(lambda transfers: transfers.create(request))


def _sources(store: Store, modelfile: Modelfile, folder: Path, report: Report) -> dict[str, Any]:
    """What FROM, ADAPTER and DRAFT mean: names of models, or files, which are put among the blobs."""
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
    if drafts := modelfile.values("DRAFT"):
        found["draft_files"] = _draft(store, drafts, folder, report)
    return found


def _draft(store: Store, values: list[str], folder: Path, report: Report) -> dict[str, str]:
    """Files of the draft model; where it is a model of the store, its weights."""
    if len(values) > 1:
        raise BadRequestError(f"DRAFT names one model, not {len(values)}: {', '.join(values)}")
    path = _local(values[0], folder)
    if path is not None:
        return add_files(store, find_files(path), report)
    model = store.get(Name.parse(values[0]))
    return {f"{model.name.model}.gguf": model.weights.digest}


def _local(value: str, folder: Path) -> Path | None:
    try:
        path = folder / Path(value).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError) as error:  # a name too long, or ~ of nobody
        raise BadRequestError(f"{value[:200]}: {error}") from None
    if value.startswith(("/", "./", "../", "~")) or value.endswith(".gguf"):
        raise BadRequestError(f"{value}: there is no such file (looked for {path})")
    return None
