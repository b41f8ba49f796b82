"""The installed distribution."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def installed() -> Distribution:
    """pyggml as installed here; running from the source tree would prove nothing."""
    found = distribution("pyggml")
    assert found.files
    return found


@pytest.fixture(scope="session")
def library_folder(installed: Distribution) -> Path:
    """Where the libraries lie. In a wheel: ``pyggml/lib``."""
    import pyggml._ffi

    return Path(pyggml._ffi.backend_libraries()[0]).parent


Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """``run(code)``: what a fresh interpreter prints, started in an empty directory; ``env`` is added to its own."""

    def python(code: str, **env: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    return python


def named_file(variable: str) -> Path:
    path = Path(os.environ.get(variable, ""))
    if not path.is_file():
        pytest.fail(f"{variable} must name the file that this installation was made from (.ci/run does that)")
    return path


@pytest.fixture(scope="session")
def wheel_file() -> Path:
    """The wheel itself; ``PYGGML_WHEEL`` names it."""
    return named_file("PYGGML_WHEEL")


@pytest.fixture(scope="session")
def sdist_file() -> Path:
    """The source distribution that the wheel was built from; ``PYGGML_SDIST`` names it."""
    return named_file("PYGGML_SDIST")
