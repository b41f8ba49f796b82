"""A model as one tar archive: ``pyggml.json`` (version and name), ``manifest.json``, then its blobs."""

import io
import json
import tarfile
from typing import IO, Any, Final

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
    """Read an archive that :meth:`export_model` wrote. Nothing is unpacked by the name that a member gives itself.

    Args:
        store: Where the model goes.
        source: The archive; it is read once, from front to end.
        report: Receives the progress.
        name: The name it gets; by default the one it had.

    Raises:
        StoreError: it is no such archive, or it is damaged.
        DigestMismatchError: a blob is not what its name says.
    """
    try:
        with tarfile.open(fileobj=source, mode="r|") as archive:
            index = json.loads(_read_text(archive, _INDEX))
            if not isinstance(index, dict) or index.get("version") != _VERSION:
                raise StoreError(f"the archive has another version than {_VERSION}: update pyggml")
            target = name or Name.parse(str(index.get("name")))
            data = _read_text(archive, _MANIFEST)
            wanted = {layer.digest: layer for layer in _layers(data)}
            while (member := archive.next()) is not None:
                _read_blob(store, archive, member, wanted, report)
    except (tarfile.TarError, EOFError, ValueError, RecursionError) as error:
        if isinstance(error, InvalidNameError):
            raise
        raise StoreError(f"the archive is damaged, or no model ({error})") from error
    if wanted:
        raise StoreError(f"the archive ends early: {len(wanted)} blobs are missing")
    report(Progress("writing manifest"))
    store.write_manifest(target, data)
    report(Progress("success"))
    return store.get(target)


def _read_text(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.next()
    if member is None or member.name != name or not member.isreg() or member.size > _MAX_TEXT:
        raise StoreError(
            f"the archive is no model: {name} is expected, not {member.name[:100] if member else 'the end'}"
        )
    stream = archive.extractfile(member)
    return stream.read() if stream is not None else b""


def _read_blob(
    store: Store, archive: tarfile.TarFile, member: tarfile.TarInfo, wanted: dict[str, Layer], report: Report
) -> None:
    digest = member.name.removeprefix("blobs/").replace("-", ":", 1)
    layer = wanted.pop(digest, None)
    if layer is None or member.name != f"blobs/{digest.replace(':', '-')}" or not member.isreg():
        raise StoreError(f"the archive holds {member.name[:100]!r}, which does not belong to the model")
    if member.size != layer.size:
        raise StoreError(f"{digest}: {member.size} bytes instead of {layer.size}")
    stream = archive.extractfile(member)
    if stream is None:
        raise StoreError(f"{digest}: no content")
    status = f"importing {digest[7:19]}"
    store.blobs.add_stream(stream, size=layer.size, status=status, expected=digest, report=report)


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
