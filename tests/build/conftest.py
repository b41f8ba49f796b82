"""A source tree to break, a fake sdist in the pinned one's place, and CMake."""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SDIST = "fakeggml-1.0.tar.gz"
FILES = {
    "PKG-INFO": "Metadata-Version: 2.1\nName: fakeggml\nVersion: 1.0\n",
    "pyproject.toml": '[build-system]\nrequires = ["not-on-any-index"]\nbuild-backend = "scikit_build_core.build"\n',
    "ggml/CMakeLists.txt": "project(ggml)\n",
    "ggml/src/ggml.c": "int one(void) {\n    return 1;\n}\n",
    "ggml/include/ggml.h": "int one(void);\n",
    "ggml/tests/big.c": "not wanted\n",
}
PATCH = """\
Subject: one is two

--- a/src/ggml.c
+++ b/src/ggml.c
@@ -1,3 +1,3 @@
 int one(void) {
-    return 1;
+    return 2;
 }
"""


def make_sdist(folder: Path, files: dict[str, str] = FILES) -> str:
    """Write a small source distribution into ``folder``; its sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / SDIST, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"fakeggml-1.0/{name}")
            data = text.encode()
            member.size, member.mtime = len(data), 1_000_000_000
            archive.addfile(member, io.BytesIO(data))
    return hashlib.sha256((folder / SDIST).read_bytes()).hexdigest()


@dataclass
class Checkout:
    """A copy of what fetch.py works on, with an index of one folder."""

    root: Path

    @property
    def index(self) -> Path:
        return self.root / "index"

    @property
    def tree(self) -> Path:
        return self.root / "vendor/ggml/src"

    @property
    def patches(self) -> Path:
        return self.root / "patches"

    def pin(self, digest: str, name: str = "fakeggml", version: str = "1.0") -> None:
        line = f"{name}=={version} \\\n    --hash=sha256:{digest}\n"
        (self.root / "vendor/ggml/requirements.txt").write_text(line)

    def fetch(self, *, python: str = sys.executable, **env: str) -> subprocess.CompletedProcess[str]:
        """Run fetch.py as CMake does, with no index but the folder."""
        offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.index), "PIP_CONFIG_FILE": os.devnull}
        return subprocess.run(
            [python, str(self.root / "vendor/ggml/fetch.py")],
            env={**os.environ, **offline, **env},
            capture_output=True,
            text=True,
            check=False,
        )

    def refused(self, *, python: str = sys.executable, **env: str) -> str:
        """The one line with which fetch.py stops."""
        run = self.fetch(python=python, **env)
        assert run.returncode == 1, run.stdout + run.stderr
        assert run.stdout == ""
        assert run.stderr.count("\n") == 1, run.stderr
        assert not list(self.root.glob("vendor/ggml/unpack-*")), "scratch folder left behind"
        return run.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout whose pin names the fake sdist, which lies in the index."""
    for part in ("CMakeLists.txt", "vendor/ggml", "patches"):
        source, target = ROOT / part, tmp_path / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("src", "download", "__pycache__", "*.patch"))
        else:
            shutil.copy(source, target)
    made = Checkout(tmp_path)
    made.pin(make_sdist(made.index))
    return made


Configure = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def cmake() -> str:
    """The cmake to use: the one beside this Python, else the one on PATH; it must be 3.26 or newer."""
    path = shutil.which("cmake", path=str(Path(sys.executable).parent)) or shutil.which("cmake")
    if path is None:
        pytest.fail("these tests need cmake >= 3.26 and ninja: pip install cmake ninja")
    shown = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    if tuple(int(n) for n in shown.split()[2].split(".")[:2]) < (3, 26):
        pytest.fail(f"{path} is {shown.split()[2]}, these tests need 3.26: pip install cmake ninja")
    return path


@pytest.fixture(scope="session")
def configure(cmake: str) -> Configure:
    """``configure(build, *arguments, source=ROOT, env={})`` runs the configure step as scikit-build-core does."""

    def run(
        build: Path, *arguments: str, source: Path = ROOT, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [cmake, "-S", str(source), "-B", str(build), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"]
        command += ["-DSKBUILD_PROJECT_VERSION=0.1.0", "-DSKBUILD_SABI_VERSION=3.11"]
        command += ["-DSKBUILD_SABI_COMPONENT=Development.SABIModule", f"-DPython_EXECUTABLE={sys.executable}"]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        return subprocess.run(
            [*command, *arguments],
            env={**os.environ, "PATH": path, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )

    return run
