"""Small models on disk, for tests of the store."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pyggml.gguf import GGUFWriter
from pyggml_server.errors import TransferError
from pyggml_server.store import PipDownloader, Progress, Report, Requirement, silent

MakeWheel = Callable[..., Path]


def write_model(path: Path, *, value: float = 1.0, n: int = 1000) -> Path:
    """A valid GGUF file with one tensor of ``n`` float32."""
    writer = GGUFWriter(path, architecture="llama")
    writer.add("general.file_type", 0)
    writer.add_tensor("x.weight", np.full(n, value, np.float32))
    writer.write()
    return path


class FolderDownloader(PipDownloader):
    """Takes wheels from a folder without starting pip, which needs about a second each time.

    Like the real one, it uses what an earlier try left in the working folder.
    """

    def __init__(self, index: Path) -> None:
        super().__init__()
        self._index = index

    def download(self, requirement: Requirement, *, into: Path, sdist: bool = False, report: Report = silent) -> Path:
        """Copy a wheel."""
        report(Progress(f"downloading {requirement}"))
        stem = requirement.normalized.replace("-", "_")
        done = into / f"{stem}.whl"
        if not done.exists():
            found = sorted(self._index.glob(f"{stem}-{requirement.version or '*'}-*.whl"))
            if not found:
                raise TransferError(f"could not download {requirement}")
            shutil.copy(found[-1], done)
        return done
