"""The installed package at work, from another directory and beside another ggml."""

import os
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from .conftest import ROOT, Run

pytestmark = pytest.mark.wheel
MATMUL = """
import numpy as np
from pyggml._ffi import load, ffi
lib = load()
names = [ffi.string(lib.ggml_backend_dev_name(lib.ggml_backend_dev_get(i))).decode()
         for i in range(lib.ggml_backend_dev_count())]
"""
DECOY = """
#include <stdio.h>
#include <stddef.h>
const char * ggml_version(void) { return "decoy"; }
const char * ggml_commit(void) { return "decoy"; }
size_t ggml_type_size(int type) { (void) type; return 12345; }
size_t ggml_backend_dev_count(void) { return 77; }
"""


def test_cpu_device_is_found_from_another_directory(run: Run) -> None:
    assert "CPU" in run(MATMUL + "print(names)")


def test_a_misleading_working_directory(run: Run, tmp_path: Path) -> None:
    """ggml's own search looks into the current directory: a file there must not be opened."""
    (tmp_path / "libggml-cpu.so").write_bytes(b"not a library")
    (tmp_path / "pyggml.txt").touch()
    assert "CPU" in run(MATMUL + "print(names)")


@pytest.mark.skipif(sys.platform != "linux", reason="the names of ELF libraries")
@pytest.mark.parametrize("soname", ["libggml-base.so", "libggml-base.so.0", "libggml.so"])
def test_another_packages_ggml_is_not_mistaken_for_ours(run: Run, tmp_path: Path, soname: str) -> None:
    source = tmp_path / "decoy.c"
    source.write_text(DECOY)
    decoy = tmp_path / soname
    subprocess.run(["cc", "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", str(decoy), str(source)], check=True)
    shown = run(
        f"import ctypes; decoy = ctypes.CDLL({str(decoy)!r}, mode=ctypes.RTLD_LOCAL)\n"
        "assert decoy.ggml_type_size(0) == 12345\n" + MATMUL + "print(lib.ggml_type_size(0), names)"
    )
    assert shown.startswith("4 ["), shown
    assert "CPU" in shown


def test_import_loads_no_native_code(run: Run) -> None:
    code = "import sys, pyggml, pyggml.gguf, pyggml_server.store, pyggml_server.cli.main\n"
    assert run(code + "print([m for m in sys.modules if m.startswith('pyggml._ffi')])") == "[]"


def test_console_script(installed: Distribution, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("pyggml")
    run = subprocess.run([str(program), "--version"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert installed.version in run.stdout


def test_entry_point_for_other_peoples_models(installed: Distribution) -> None:
    scripts = {entry.name: entry.value for entry in installed.entry_points if entry.group == "console_scripts"}
    assert scripts == {"pyggml": "pyggml_server.cli.main:main"}


def test_computes_what_numpy_computes(run: Run) -> None:
    code = (ROOT / "examples/matmul.py").read_text()
    run(code)


@pytest.mark.slow
def test_editable_install_finds_the_libraries(tmp_path: Path) -> None:
    """There ``pyggml.__file__`` is in the source tree and the libraries are in site-packages."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv/bin/python")
    build = f"-Cbuild-dir={tmp_path / 'build'}"
    subprocess.run([python, "-m", "pip", "install", "-q", build, "-e", str(ROOT)], check=True)
    code = MATMUL + "import pyggml; from pyggml._ffi import backend_libraries; print(pyggml.__file__); "
    code += "print(backend_libraries()[0]); print(names)"
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    shown = subprocess.run([python, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    source, library, devices = shown.stdout.splitlines()
    assert source.startswith(str(ROOT / "src"))
    assert library.startswith(str(tmp_path / "venv"))
    assert "CPU" in devices
