"""``pyggml show``."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click
import numpy as np

from pyggml.gguf import GGUFFile, StringArray, file_type_name, parameter_count
from pyggml_server.cli.find import find_model
from pyggml_server.store import StoredModel, human_bytes, human_count, modelfile_text, parameter_lines

__all__ = ["show"]

_HEAD = 5
_TEXT = 200


@click.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--tensors", is_flag=True, help="List the tensors too.")
@click.option("-v", "--verbose", is_flag=True, help="Print arrays and texts in full length.")
@click.option("--license", is_flag=True, help="Print the licences only.")
@click.option("--modelfile", is_flag=True, help="Print a Modelfile that makes the model again.")
@click.option("--parameters", is_flag=True, help="Print the default options only.")
@click.option("--system", is_flag=True, help="Print the system message only.")
@click.option("--template", is_flag=True, help="Print the prompt template only.")
def show(model: str, *, as_json: bool, tensors: bool, verbose: bool, **texts: bool) -> None:
    """Show what is inside MODEL: the path of a GGUF file, or the name of a model in the store."""
    parts = [name for name, wanted in texts.items() if wanted]
    if len(parts) > 1:
        raise click.UsageError(f"--{parts[0]} and --{parts[1]} print one text each: give one of them")
    part = parts[0] if parts else None
    if part is not None and (as_json or tensors or verbose):
        raise click.UsageError(f"--{part} prints one text: give no other option with it")
    found = find_model(model)
    stored = found.stored
    if part is not None:
        if stored is None:
            raise click.UsageError(f"--{part} is for models in the store, not for files")
        click.echo(_part(stored, part).encode("utf-8", "replace"))
        return
    with GGUFFile(found.path) as file:
        if as_json:
            document = _document(file, stored, tensors=tensors, verbose=verbose)
            click.echo(json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8", "replace"))
        else:
            for line in _lines(file, stored, tensors=tensors, verbose=verbose):
                click.echo(line.encode("utf-8", "replace"))


def _part(stored: StoredModel, part: str) -> str:
    """One text of a model."""
    if part == "license":
        return "\n".join(stored.licenses)
    if part == "parameters":
        return "\n".join(parameter_lines(stored.params))
    if part == "system":
        return stored.system or ""
    if part == "modelfile":
        return modelfile_text(stored, system=stored.system or "", template=stored.template or "").rstrip("\n")
    if stored.template:
        return stored.template
    with GGUFFile(stored.path) as file:
        return str(file.metadata.get("tokenizer.chat_template", ""))


def _document(file: GGUFFile, stored: StoredModel | None, *, tensors: bool, verbose: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "path": str(file.path),
        "size": file.size,
        "gguf_version": file.version,
        "parameters": parameter_count(file),
        "quantization": file_type_name(file),
        "n_tensors": len(file.tensors),
        "metadata": {
            key: {"type": str(file.types[key]), "value": _plain(value, verbose=verbose)}
            for key, value in file.metadata.items()
        },
    }
    if stored is not None:
        document["name"] = stored.name.display
        document["digest"] = stored.digest
        document["params"] = dict(stored.params)
        document["system"] = stored.system
        document["template"] = stored.template
    if tensors:
        document["tensors"] = [
            {"name": t.name, "type": t.type.name, "shape": list(t.shape), "offset": t.offset, "bytes": t.n_bytes}
            for t in file.tensors.values()
        ]
    return document


def _lines(file: GGUFFile, stored: StoredModel | None, *, tensors: bool, verbose: bool) -> Iterator[str]:
    yield "Model"
    if stored is not None:
        yield f"  name              {stored.name.display}"
        yield f"  id                {stored.digest[:12]}"
    yield f"  path              {file.path}"
    yield f"  size              {human_bytes(file.size)}"
    yield f"  parameters        {human_count(parameter_count(file))}"
    yield f"  quantization      {file_type_name(file)}"
    yield f"  format            GGUF version {file.version}, {len(file.tensors)} tensors"
    if stored is not None:
        yield from _stored_lines(stored.params, stored.system)
    yield ""
    yield "Metadata"
    width = max((len(key) for key in file.metadata), default=0)
    for key, value in file.metadata.items():
        text = json.dumps(_plain(value, verbose=verbose), ensure_ascii=False)
        yield f"  {key.ljust(width)}  {str(file.types[key]).ljust(15)}  {text}"
    if tensors:
        yield ""
        yield "Tensors (shapes in ggml order: the first dimension is contiguous)"
        width = max((len(name) for name in file.tensors), default=0)
        for info in file.tensors.values():
            shape = " × ".join(map(str, info.shape))
            yield f"  {info.name.ljust(width)}  {info.type.name.ljust(7)}  {shape.ljust(18)}  {info.n_bytes:>13,} bytes"


def _stored_lines(params: Mapping[str, Any], system: str | None) -> Iterator[str]:
    if params:
        yield ""
        yield "Parameters"
        for key, value in params.items():
            for item in value if isinstance(value, list) else [value]:
                yield f"  {key.ljust(16)}  {json.dumps(item, ensure_ascii=False)}"
    if system:
        yield ""
        yield "System"
        yield from (f"  {line}" for line in system.splitlines())


def _plain(value: Any, *, verbose: bool) -> Any:
    """A metadata value as JSON can hold it; long ones are cut unless ``verbose``."""
    if isinstance(value, np.ndarray):
        value = value.tolist() if verbose else value[:_HEAD].tolist() + ["…"] * (len(value) > _HEAD)
    if isinstance(value, list | StringArray):
        cut = value if verbose or len(value) <= _HEAD else [*value[:_HEAD], "…"]
        return [_plain(v, verbose=verbose) for v in cut]
    if isinstance(value, str) and not verbose and len(value) > _TEXT:
        return value[:_TEXT] + "…"
    return value
