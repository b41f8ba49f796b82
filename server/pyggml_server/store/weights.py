"""The weights of a new model: what the uploaded files are, joined, converted, quantized."""

import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from pyggml.convert import convert_adapter, convert_folder, find_mix
from pyggml.errors import ModelError, PyggmlError, TokenizerError
from pyggml.gguf import GGUFError, GGUFFile, copy_gguf
from pyggml_server.errors import BadRequestError
from pyggml_server.store.details import describe_gguf
from pyggml_server.store.manifests import LAYER_PREFIX, Layer
from pyggml_server.store.models import Store
from pyggml_server.store.progress import Progress, Report
from pyggml_server.store.quantizing import quantize_blob
from pyggml_server.store.recipe import SourceFile

__all__ = ["import_adapters", "import_files", "quantize_layer"]

_SHARD: Final = re.compile(r".+-(\d{5})-of-(\d{5})\.gguf\Z")
_ABANDONED_SECONDS: Final = 24 * 3600
_FLOATS: Final = frozenset({"F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a GGUF file says it is."""

    layer: str
    architecture: str


def import_files(store: Store, files: Sequence[SourceFile], report: Report, *, name: str) -> list[Layer]:
    """The layers that uploaded files make: GGUF (whole, or split into shards), or a folder of safetensors.

    Args:
        store: Where the files are, and the layers go.
        files: The files.
        report: Receives the progress.
        name: What a converted model is to call itself.

    Raises:
        BadRequestError: they are no model that can be used.
        GGUFError: a file is damaged.
    """
    _check_present(store, files)
    if any(file.path.suffix == ".safetensors" for file in files):
        report(Progress("converting model"))
        return [_convert(store, files, report, name=name)]
    report(Progress("parsing GGUF"))
    with _naming(store, files):
        return _import_gguf(store, files, report)


def _import_gguf(store: Store, files: Sequence[SourceFile], report: Report) -> list[Layer]:
    shards = [file for file in files if _SHARD.match(file.path.name)]
    whole = [file for file in files if file not in shards and file.path.suffix != ".json"]
    layers = [_join(store, shards, report)] if shards else []
    for file in whole:
        kind = _inspect(store.blobs.path(file.digest), str(file.path))
        layers.append(_layer(store, file.digest, kind.layer))
    if sum(layer.kind == "model" for layer in layers) != 1:
        raise BadRequestError("the files hold no model weights, or more than one model")
    return layers


def import_adapters(
    store: Store, adapters: Sequence[SourceFile], layers: Sequence[Layer], report: Report
) -> list[Layer]:
    """The layers of adapters: LoRA in GGUF files, or PEFT's folders of safetensors.

    Raises:
        BadRequestError: one is no adapter, or is made for another model.
        GGUFError: a file is damaged.
    """
    if not adapters:
        return []
    _check_present(store, adapters)
    report(Progress("converting adapter"))
    with _naming(store, adapters):
        return _import_adapters(store, adapters, layers, report)


def _import_adapters(
    store: Store, adapters: Sequence[SourceFile], layers: Sequence[Layer], report: Report
) -> list[Layer]:
    base = next(store.blobs.path(layer.digest) for layer in layers if layer.kind == "model")
    family, made = _inspect(base, "the model").architecture, []
    folders = {file.path.parent for file in adapters if file.path.suffix == ".safetensors"}
    for parent in sorted(folders):
        made.append(_convert_adapter(store, [file for file in adapters if file.path.parent == parent], base, report))
    for file in adapters:
        if file.path.suffix == ".json" or file.path.parent in folders:
            continue
        kind = _inspect(store.blobs.path(file.digest), str(file.path))
        if kind.layer != "adapter":
            raise BadRequestError(f"{file.path}: it is no adapter")
        if kind.architecture != family:
            raise BadRequestError(f"{file.path}: it is made for {kind.architecture}, the model is {family}")
        made.append(_layer(store, file.digest, "adapter"))
    if not made:
        raise BadRequestError("the files hold no adapter: neither *.gguf nor *.safetensors")
    return made


def quantize_layer(store: Store, layer: Layer, text: str, report: Report) -> Layer:
    """The weights in another mix of types; the layer itself where they have it already.

    Raises:
        BadRequestError: the mix is unknown, or the weights are quantized already.
    """
    try:
        mix = find_mix(text)
    except PyggmlError as error:
        raise BadRequestError(str(error)) from None
    path = store.blobs.path(layer.digest)
    now = describe_gguf(path).quantization_level
    if now == mix.name:
        return layer
    if now not in _FLOATS:
        raise BadRequestError(f"quantization is only supported for F16 and F32 models, this one is {now}")
    with working_folder(store) as folder:
        status = f"quantizing {now} model to {mix.name}"
        report(Progress(status))
        quantize_blob(path, folder / "model.gguf", mix, status=status, report=report)
        report(Progress("verifying conversion"))
        return _adopt(store, folder / "model.gguf", report)


@contextmanager
def working_folder(store: Store) -> Iterator[Path]:
    """A folder on the store's disk that goes away; what a killed process left goes, too."""
    parent = store.work_folder() / "create"
    parent.mkdir(exist_ok=True)
    for old in parent.iterdir():
        with suppress(FileNotFoundError):  # another process was faster
            if old.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
    folder = parent / token_hex(8)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_present(store: Store, files: Sequence[SourceFile]) -> None:
    for file in files:
        if store.blobs.find(file.digest) is None:
            raise BadRequestError(f'{file.path}: blob "{file.digest}" not found: upload it first')


def _layer(store: Store, digest: str, kind: str) -> Layer:
    return Layer(f"{LAYER_PREFIX}{kind}", digest, store.blobs.path(digest).stat().st_size)


def _inspect(path: Path, label: str) -> _Kind:
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise BadRequestError(f"supplied file was not in GGUF format: {label}")
    with GGUFFile(path) as gguf:
        architecture: Any = gguf.metadata.get("general.architecture", "")
        kind = gguf.metadata.get("general.type")
    if kind == "adapter":
        return _Kind("adapter", str(architecture))
    return _Kind("projector" if architecture == "clip" or kind == "mmproj" else "model", str(architecture))


def _lay_out(store: Store, files: Sequence[SourceFile], folder: Path) -> None:
    """Give blobs the names that their files had; the paths were checked and stay inside of the folder."""
    for file in files:
        target = folder.joinpath(*file.path.parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(store.blobs.path(file.digest).absolute())


def _join(store: Store, shards: Sequence[SourceFile], report: Report) -> Layer:
    with working_folder(store) as folder:
        _lay_out(store, shards, folder)
        firsts = [file for file in shards if _SHARD.sub(r"\1", file.path.name) == "00001"]
        if len(firsts) != 1:
            raise BadRequestError("the shards have no first part, or they belong to several models")
        with GGUFFile(folder.joinpath(*firsts[0].path.parts)) as source:
            if len(source.parts) != len(shards):
                raise BadRequestError(f"the model has {len(source.parts)} shards, {len(shards)} were given")
            copy_gguf(source, folder / "joined.gguf")
        return _adopt(store, folder / "joined.gguf", report)


def _convert(store: Store, files: Sequence[SourceFile], report: Report, *, name: str) -> Layer:
    with working_folder(store) as folder:
        source = folder / "source"
        _lay_out(store, files, source)
        configs = sorted(source.rglob("config.json"), key=lambda path: len(path.parts))
        if not configs:
            raise BadRequestError("there is no config.json beside the safetensors")
        with _blaming(source):
            convert_folder(configs[0].parent, folder / "model.gguf", name=name)
        return _adopt(store, folder / "model.gguf", report)


def _convert_adapter(store: Store, files: Sequence[SourceFile], base: Path, report: Report) -> Layer:
    with working_folder(store) as folder:
        source = folder / "source"
        _lay_out(store, files, source)
        with GGUFFile(base) as model, _blaming(source):
            convert_adapter(source.joinpath(*files[0].path.parent.parts), folder / "adapter.gguf", base=model)
        path = folder / "adapter.gguf"
        with path.open("rb") as stream:
            blob = store.blobs.add_stream(
                stream, size=path.stat().st_size, status="storing the adapter", check=None, report=report
            )
        return Layer(f"{LAYER_PREFIX}adapter", blob.digest, blob.size)


@contextmanager
def _naming(store: Store, files: Sequence[SourceFile]) -> Iterator[None]:
    """Damaged files are called by the names they were uploaded with; clients know nothing of the server's folders."""
    try:
        yield
    except GGUFError as error:
        text = re.sub(rf"{re.escape(str(store.work_folder()))}/create/[0-9a-f]+/", "", str(error))
        for file in files:
            text = text.replace(str(store.blobs.path(file.digest)), str(file.path))
        raise GGUFError(text) from None


@contextmanager
def _blaming(source: Path) -> Iterator[None]:
    """What is wrong with uploaded files is the request's fault, and their names are those that were uploaded."""
    try:
        yield
    except (ModelError, TokenizerError) as error:
        text = str(error).replace(f"{source}/", "").replace(f"{source}: ", "")
        raise BadRequestError(text) from None


def _adopt(store: Store, path: Path, report: Report) -> Layer:
    size = path.stat().st_size
    with path.open("rb") as stream:
        blob = store.blobs.add_stream(stream, size=size, status="storing the model", check=describe_gguf, report=report)
    return Layer(f"{LAYER_PREFIX}model", blob.digest, blob.size)
