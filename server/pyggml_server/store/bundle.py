"""A model as one tar archive: ``pyggml.json`` (version and name), ``manifest.json``, then its blobs."""

import io
import json
import tarfile
from pathlib import Path
from typing import IO, Any, Final, Self

from pyggml.gguf import GGUFError, GGUFFile
from pyggml_server.errors import InvalidNameError, StoreError
from pyggml_server.names import Name
from pyggml_server.store.manifests import Layer, parse_manifest
from pyggml_server.store.models import Store, StoredModel
from pyggml_server.store.progress import Progress, Report

__all__ = ["export_model", "import_model"]

_VERSION: Final = 1
_INDEX: Final = "pyggml.json"
_MANIFEST: Final = "manifest.json"
_MAX_TEXT: Final = 4 << 20
_CHUNK: Final = 1 << 20
_MAX_HEADER: Final = 1 << 16
_GGUF: Final = frozenset({"model", "projector", "adapter", "draft"})


def export_model(store: Store, name: Name, target: IO[bytes], report: Report) -> None:
    """Write a model as an archive. The same model gives the same bytes.

    Raises:
        ModelNotFoundError: there is none of that name.
        StoreError: one of its blobs is missing.
    """
    model = store.get(name)
    data = store.manifests.read_bytes(model.name)
    manifest = parse_manifest(data)
    index = {"version": _VERSION, "name": "/".join(model.name.parts[:3]) + f":{model.name.tag}"}
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for member, text in ((_INDEX, json.dumps(index).encode()), (_MANIFEST, data)):
            archive.addfile(_member(member, len(text)), io.BytesIO(text))
        for layer in _layers(data):
            path = store.blobs.path(layer.digest)
            with path.open("rb") as file:
                info = _member(f"blobs/{path.name}", layer.size)
                archive.addfile(info, _Reported(file, f"exporting {layer.digest[7:19]}", layer, report))
    report(Progress("success", manifest.size, manifest.size))


def import_model(store: Store, source: IO[bytes], report: Report, *, name: Name | None = None) -> StoredModel:
    """Read an archive that :meth:`export_model` wrote. Nothing is unpacked by the name that a member gives itself, and
    nothing stays when it fails.

    Args:
        store: Where the model goes.
        source: The archive; it is read once, from front to end.
        report: Receives the progress.
        name: The name it gets; by default the one it had.

    Raises:
        StoreError: it is no such archive, or it is damaged.
        DigestMismatchError: a blob is not what its name says.
        GGUFError: the weights are none.
    """
    added: list[str] = []
    try:
        target, data = _read_archive(store, source, added, report, name=name)
        report(Progress("writing manifest"))
        store.write_manifest(target, data)
    except (tarfile.TarError, EOFError, ValueError, RecursionError) as error:
        store.drop_unused(added)
        if isinstance(error, InvalidNameError | GGUFError):
            raise
        raise StoreError(f"the archive is damaged, or no model ({error})") from error
    except BaseException:
        store.drop_unused(added)
        raise
    report(Progress("success"))
    return store.get(target)


def _read_archive(
    store: Store, source: IO[bytes], added: list[str], report: Report, *, name: Name | None
) -> tuple[Name, bytes]:
    """Put the blobs into the store, and say so in ``added``; gives the name and the manifest."""
    with tarfile.open(fileobj=source, mode="r|", tarinfo=_Member) as archive:
        index = json.loads(_read_text(archive, _INDEX))
        if not isinstance(index, dict) or index.get("version") != _VERSION:
            raise StoreError(f"the archive has another version than {_VERSION}: update pyggml")
        target = name or Name.parse(str(index.get("name")))
        data = _read_text(archive, _MANIFEST)
        wanted = {layer.digest: layer for layer in _layers(data)}
        kinds = {layer.digest: layer.kind for layer in parse_manifest(data).layers}
        while (member := archive.next()) is not None:
            layer = _wanted(member, wanted)
            known = store.blobs.find(layer.digest) is not None
            _read_blob(store, archive, member, layer, report, check=kinds.get(layer.digest) in _GGUF)
            if not known:
                added.append(layer.digest)
    if wanted:
        raise StoreError(f"the archive ends early: {len(wanted)} blobs are missing")
    return target, data


class _Member(tarfile.TarInfo):
    """A member. Headers that go on in the next blocks are read whole, so they must not be long."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read a block."""
        info = super().frombuf(buf, encoding, errors)
        if info.type not in tarfile.REGULAR_TYPES and info.size > _MAX_HEADER:
            raise StoreError(f"the archive has a header of {info.size} bytes: pyggml did not write it")
        return info


def _read_text(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.next()
    if member is None or member.name != name or not member.isreg() or member.size > _MAX_TEXT:
        found = f"{member.name[:100]!r} of {member.size} bytes" if member else "the end"
        raise StoreError(f"the archive is no model: {name} is expected, not {found}")
    stream = archive.extractfile(member)
    return stream.read() if stream is not None else b""


def _wanted(member: tarfile.TarInfo, wanted: dict[str, Layer]) -> Layer:
    """The layer that a member holds, taken out of ``wanted``."""
    digest = member.name.removeprefix("blobs/").replace("-", ":", 1)
    layer = wanted.pop(digest, None)
    if layer is None or member.name != f"blobs/{digest.replace(':', '-')}" or not member.isreg():
        raise StoreError(f"the archive holds {member.name[:100]!r}, which does not belong to the model")
    if member.size != layer.size:
        raise StoreError(f"{digest}: {member.size} bytes instead of {layer.size}")
    return layer


def _read_blob(
    store: Store, archive: tarfile.TarFile, member: tarfile.TarInfo, layer: Layer, report: Report, *, check: bool
) -> None:
    stream = archive.extractfile(member)
    if stream is None:
        raise StoreError(f"{layer.digest}: no content")
    status, look = f"importing {layer.digest[7:19]}", _check_gguf if check else None
    store.blobs.add_stream(
        stream, size=layer.size, status=status, expected=layer.digest, check=look, report=report
    )  # fmt: skip


def _check_gguf(path: Path) -> None:
    with GGUFFile(path):
        pass


def _layers(data: bytes) -> list[Layer]:
    manifest = parse_manifest(data)
    return list({layer.digest: layer for layer in (manifest.config, *manifest.layers)}.values())


def _member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info


class _Reported(io.RawIOBase):
    """A file that tells how much of it was read."""

    def __init__(self, file: IO[bytes], status: str, layer: Layer, report: Report) -> None:
        super().__init__()
        self._file, self._status, self._layer, self._report = file, status, layer, report
        self._done = 0

    def read(self, size: int = -1) -> Any:
        """Read on."""
        data = self._file.read(min(size, _CHUNK) if size >= 0 else -1) if size != 0 else b""
        while 0 <= len(data) < size and (more := self._file.read(min(size - len(data), _CHUNK))):
            data += more
        self._done += len(data)
        self._report(Progress(self._status, self._done, self._layer.size, self._layer.digest))
        return data
