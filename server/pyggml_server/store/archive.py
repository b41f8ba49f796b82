"""Reads members of wheels and source archives. Nothing is unpacked by the name that a member gives itself."""

import base64
import csv
import io
import re
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from pathlib import Path, PurePosixPath
from typing import IO, Final

from pyggml.closing import Closing
from pyggml_server.errors import TransferError

__all__ = ["Archive", "DamagedArchiveError"]

_MAX_MEMBERS: Final = 100_000
_MAX_TEXT: Final = 16 << 20
_DAMAGED: Final = (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError)


class DamagedArchiveError(TransferError):
    """The archive itself is broken: another download may help, this file will not."""


class Archive(Closing):
    """An open wheel, zip or tar archive.

    Args:
        path: The file. Wheels and zips are recognised by content, everything else is tried as tar.

    Raises:
        DamagedArchiveError: it is damaged, or a member's name stands twice.
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self._zip: zipfile.ZipFile | None = None
        self._tar: tarfile.TarFile | None = None
        try:
            if zipfile.is_zipfile(path):
                self._zip = zipfile.ZipFile(path)
                members = [(m.filename, m.file_size) for m in self._zip.infolist() if not m.is_dir()]
            else:
                self._tar = tarfile.open(path)  # noqa: SIM115 - closed by close()
                members = [(m.name, m.size) for m in self._tar if m.isreg()]
        except _DAMAGED as error:
            self.close()
            raise DamagedArchiveError(f"{path.name}: the archive is damaged ({error}); pull again") from error
        self.members: Final[dict[str, int]] = dict(members)
        """Regular files: name in the archive → size in bytes."""
        if len(self.members) != len(members) or len(members) > _MAX_MEMBERS:
            self.close()
            raise DamagedArchiveError(f"{path.name}: the archive has members twice, or more than {_MAX_MEMBERS}")

    def find(self, name: str) -> str:
        """The one member whose path ends in ``name``.

        Raises:
            TransferError: there is none, or more than one.
        """
        wanted = PurePosixPath(name).parts
        found = [m for m in self.members if PurePosixPath(m).parts[-len(wanted) :] == wanted]
        if len(found) != 1:
            problem = "several" if found else "no"
            raise TransferError(f"{self.path.name}: {problem} files {name!r}; it holds {self.summary()}")
        return found[0]

    def matching(self, pattern: str) -> list[str]:
        """Members whose file name matches the regular expression, sorted by name."""
        compiled = re.compile(pattern, re.IGNORECASE)
        return sorted(m for m in self.members if compiled.fullmatch(PurePosixPath(m).name))

    @contextmanager
    def open(self, member: str) -> Iterator[IO[bytes]]:
        """A member as a stream.

        Raises:
            DamagedArchiveError: the archive turns out to be damaged while it is read.
        """
        try:
            stream = self._zip.open(member) if self._zip else self._open_tar(member)
            with stream:
                yield stream
        except (*_DAMAGED, RuntimeError) as error:
            # zipfile reports encryption and unknown compression as RuntimeError
            raise DamagedArchiveError(f"{self.path.name}: {member} cannot be read ({error}); pull again") from error

    def read_text(self, member: str) -> str:
        """A small text file.

        Raises:
            TransferError: it is larger than 16 MB.
        """
        if self.members[member] > _MAX_TEXT:
            raise TransferError(f"{self.path.name}: {member} is larger than {_MAX_TEXT} bytes")
        with self.open(member) as stream:
            return stream.read(_MAX_TEXT).decode("utf-8", "replace")

    @property
    def is_wheel(self) -> bool:
        """True for wheels, which list the digests of their files."""
        return self.path.suffix == ".whl"

    def record(self) -> dict[str, str]:
        """What a wheel's RECORD says: member → SHA-256 (hexadecimal). Empty for other archives.

        Raises:
            DamagedArchiveError: a wheel without a readable RECORD.
        """
        if not self.is_wheel:
            return {}
        found = [m for m in self.members if re.fullmatch(r"[^/]+\.dist-info/RECORD", m)]
        if len(found) != 1:
            raise DamagedArchiveError(f"{self.path.name}: the wheel has no RECORD of its files")
        digests = {}
        for row in csv.reader(io.StringIO(self.read_text(found[0]))):
            if len(row) >= 2 and row[1].startswith("sha256="):
                raw = row[1].removeprefix("sha256=")
                try:
                    digests[row[0]] = base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4)).hex()
                except ValueError as error:
                    raise DamagedArchiveError(f"{self.path.name}: RECORD has a bad digest for {row[0]}") from error
        return digests

    def requirements(self) -> list[str]:
        """The ``Requires-Dist`` lines of the package's metadata."""
        pattern = r"[^/]+\.dist-info/METADATA" if self.is_wheel else r"[^/]+/PKG-INFO"
        found = [m for m in self.members if re.fullmatch(pattern, m)]
        if not found:
            return []
        message = BytesParser().parsebytes(self.read_text(found[0]).encode(), headersonly=True)
        return [str(value) for value in message.get_all("Requires-Dist", [])]

    def summary(self) -> str:
        """The largest members, for error messages."""
        largest = sorted(self.members, key=lambda m: -self.members[m])[:6]
        return ", ".join(largest) or "nothing"

    def close(self) -> None:
        """Close the file."""
        for archive in (self._zip, self._tar):
            if archive is not None:
                archive.close()

    def _open_tar(self, member: str) -> IO[bytes]:
        stream = self._tar.extractfile(member) if self._tar else None
        if stream is None:
            raise TransferError(f"{self.path.name}: {member} is not a regular file")
        return stream
