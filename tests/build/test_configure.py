"""The configure step: its options, and the one line near the end of the output when it has to stop."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT, SDIST, Checkout, Configure

pytestmark = pytest.mark.build


def stopped(run: subprocess.CompletedProcess[str]) -> str:
    """The one line of a failed configure step; it must stand near the end and not be folded."""
    assert run.returncode != 0, run.stdout
    lines = (run.stdout + run.stderr).rstrip().splitlines()
    found = [line.strip() for line in lines[-15:] if line.strip().startswith("pyggml: ")]
    assert len(found) == 1, "\n".join(lines[-30:])
    return found[0]


def libraries(run: subprocess.CompletedProcess[str]) -> list[str]:
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr
    line = next(line for line in run.stdout.splitlines() if "pyggml: libraries" in line)
    return line.split()[-1].split(";")


def flags(build: Path, source: str) -> str:
    """The compiler flags of the first command whose source ends so."""
    commands = json.loads((build / "compile_commands.json").read_text())
    return str(next(entry["command"] for entry in commands if entry["file"].endswith(source)))


@pytest.fixture(scope="module")
def plain(configure: Configure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configured build folder with the default options."""
    build = tmp_path_factory.mktemp("plain") / "build"
    assert libraries(configure(build)) == ["ggml", "ggml-base", "ggml-cpu", "ggml-rpc"]
    return build


@pytest.mark.parametrize("variable", ["CC", "CXX"])
def test_no_compiler(configure: Configure, tmp_path: Path, variable: str) -> None:
    said = stopped(configure(tmp_path / "build", env={variable: "/nonexistent"}))
    assert f"no {variable.replace('CC', 'C')} compiler: install one" in said
    assert "build-essential" in said


def test_no_compiler_on_path(configure: Configure, tmp_path: Path, cmake: str) -> None:
    ninja = f"-DCMAKE_MAKE_PROGRAM={Path(cmake).with_name('ninja')}"
    assert "no C compiler" in stopped(configure(tmp_path / "build", ninja, env={"PATH": str(tmp_path)}))


def test_local_tree_that_is_none(configure: Configure, tmp_path: Path) -> None:
    said = stopped(configure(tmp_path / "build", "-DPYGGML_GGML_SOURCE=/nonexistent/ggml"))
    assert "is no ggml tree" in said
    assert "name the folder that holds both" in said


@pytest.mark.slow
def test_local_tree(configure: Configure, tmp_path: Path) -> None:
    run = configure(tmp_path / "build", f"-DPYGGML_GGML_SOURCE={ROOT / 'vendor/ggml/src'}")
    assert "ggml-cpu" in libraries(run)
    assert "local tree" in run.stdout


def test_a_failed_download_is_one_line(configure: Configure, checkout: Checkout, tmp_path: Path) -> None:
    (checkout.index / SDIST).unlink()
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(checkout.index), "PIP_CONFIG_FILE": os.devnull}
    said = stopped(configure(tmp_path / "build", source=checkout.root, env=offline))
    assert said.startswith("pyggml: ggml: your package index lacks the sdist of fakeggml 1.0; ")
    assert said.endswith("PYGGML_GGML_SOURCE=/path/to/ggml"), "the line must hold together, semicolons and all"


@pytest.mark.slow
def test_static_backends_are_refused(configure: Configure, tmp_path: Path) -> None:
    assert "GGML_BACKEND_DL=OFF is not supported" in stopped(configure(tmp_path / "b", "-DGGML_BACKEND_DL=OFF"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "package", "said"),
    [
        ("BLAS", "BLAS", "libopenblas-dev pkg-config"),
        ("CUDA", "CUDAToolkit", "needs the CUDA toolkit"),
        ("VULKAN", "SPIRV-Headers", "libvulkan-dev glslc spirv-headers"),
    ],
)
def test_toolkit_is_missing(configure: Configure, tmp_path: Path, option: str, package: str, said: str) -> None:
    run = configure(tmp_path / "b", f"-DGGML_{option}=ON", f"-DCMAKE_DISABLE_FIND_PACKAGE_{package}=ON")
    assert said in stopped(run)


def test_defaults(plain: Path) -> None:
    ninja = (plain / "build.ninja").read_text()
    assert "-DGGML_USE_LLAMAFILE" in ninja
    assert "-fopenmp" not in ninja
    version = next(plain.rglob("ggml-version.h")).read_text()
    assert re.search(r'GGML_COMMIT +"unknown"', version), "ggml must not see our commits"
    assert "SONAME = libpyggml.so" in ninja
    assert "SONAME = libpyggml-base.so" in ninja


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="how x86 is told its features")
def test_the_cpu_back_end_fits_this_machine(plain: Path) -> None:
    macros = subprocess.run(
        ["cc", "-march=native", "-dM", "-E", "-x", "c", os.devnull], capture_output=True, text=True, check=True
    ).stdout
    command = flags(plain, "ggml-cpu/ggml-cpu.c")
    for macro, flag in {"AVX": "-mavx", "AVX2": "-mavx2", "FMA": "-mfma", "AVX512VL": "-mavx512vl"}.items():
        assert (f"__{macro}__ " in macros) == (f" {flag} " in command), flag
    assert "-march=native" not in command


@pytest.mark.slow
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="how x86 is told its features")
def test_a_cpu_back_end_that_travels(configure: Configure, tmp_path: Path) -> None:
    assert "ggml-cpu" in libraries(configure(tmp_path / "build", "-DGGML_NATIVE=OFF", "-DGGML_AVX2=OFF"))
    command = flags(tmp_path / "build", "ggml-cpu/ggml-cpu.c")
    assert "-mtune=native" not in command
    assert " -mavx2 " not in command
    assert " -mavx " in command


@pytest.mark.slow
def test_options_that_are_switched_off_again(configure: Configure, tmp_path: Path) -> None:
    """The build folder is kept between installs: what was chosen last must hold."""
    build = tmp_path / "build"
    every = libraries(configure(build, "-DGGML_CPU_ALL_VARIANTS=ON"))
    assert len([name for name in every if name.startswith("ggml-cpu-")]) >= 3
    assert "ggml-cpu" not in every
    assert libraries(configure(build, "-DGGML_CPU_ALL_VARIANTS=OFF", "-DGGML_RPC=OFF")) == [
        "ggml",
        "ggml-base",
        "ggml-cpu",
    ]


@pytest.mark.slow
def test_what_pip_shows_in_the_end(checkout: Checkout, tmp_path: Path) -> None:
    """The line is found near the end of ``pip install .``, below the noise."""
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        (checkout.root / name).write_bytes((ROOT / name).read_bytes())
    for package in ("src/pyggml", "server/pyggml_server"):
        (checkout.root / package).mkdir(parents=True)
        (checkout.root / package / "__init__.py").touch()
    checkout.pin("0" * 64, "llama-cpp-python", "0.3.36")
    run = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(tmp_path / "t"), str(checkout.root)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    lines = [line for line in (run.stdout + run.stderr).splitlines() if not line.startswith("WARNING")]
    near = [line for line in lines[-25:] if re.search(r"pyggml: ggml: hash mismatch: .*PYGGML_GGML_SOURCE=", line)]
    assert len(near) == 1, "\n".join(lines[-40:])
