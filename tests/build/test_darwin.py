"""What the build would do on macOS, asked of CMake with a made-up Darwin (darwin.cmake); nothing is compiled.

The answers are read from the generated ``build.ninja``: which libraries, under which names, linked how, and that the
Metal library which is embedded holds every flash-attention kernel that the back end claims to have.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from .conftest import ROOT, Configure

pytestmark = pytest.mark.build
METAL = ROOT / "vendor/ggml/src/src/ggml-metal"


@dataclass
class Plan:
    """One configured build folder."""

    build: Path
    output: str
    ninja: str

    def link(self, library: str) -> str:
        """The build statement that links ``library``, with its variables."""
        match = re.search(rf"^build [^:\n]*{re.escape(library)}: .*?(?=^\s*$)", self.ninja, re.M | re.S)
        assert match is not None, f"{library} is not built"
        return match.group()


def plan(configure: Configure, folder: Path, processor: str, *arguments: str) -> Plan:
    frameworks = folder / "frameworks"
    for name in ("Accelerate", "Foundation", "Metal", "MetalKit"):
        (frameworks / f"{name}.framework/Headers").mkdir(parents=True)
    run = configure(
        folder / "build",
        "--toolchain",
        str(Path(__file__).with_name("darwin.cmake")),
        *arguments,
        env={"PYGGML_FAKE_FRAMEWORKS": str(frameworks), "PYGGML_FAKE_PROCESSOR": processor},
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr
    return Plan(folder / "build", run.stdout, (folder / "build/build.ninja").read_text())


@pytest.fixture(scope="module")
def darwin(configure: Configure, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return plan(configure, tmp_path_factory.mktemp("darwin"), "arm64")


def test_libraries(darwin: Plan) -> None:
    line = next(line for line in darwin.output.splitlines() if "pyggml: libraries" in line)
    assert line.split()[-1].split(";") == ["ggml", "ggml-base", "ggml-cpu", "ggml-blas", "ggml-metal", "ggml-rpc"]


@pytest.mark.parametrize("name", ["libpyggml.dylib", "libpyggml-base.dylib"])
def test_shared_libraries_are_found_beside_their_user(darwin: Plan, name: str) -> None:
    statement = darwin.link(name)
    assert f"SONAME = {name}\n" in statement, "no version in the name, or wheels would hold two copies"
    assert "INSTALLNAME_DIR = @rpath/" in statement
    assert "-Wl,-rpath,@loader_path " in statement
    assert "-dynamiclib" in statement


@pytest.mark.parametrize("backend", ["cpu", "blas", "metal", "rpc"])
def test_backends_are_bundles_with_the_name_that_the_loader_looks_for(darwin: Plan, backend: str) -> None:
    """ggml and pyggml's loader look for ``libggml-*.so``, on macOS too."""
    statement = darwin.link(f"libggml-{backend}.so")
    assert "-bundle" in statement
    assert "-Wl,-rpath,@loader_path " in statement
    assert "libpyggml-base.dylib" in statement


def test_extension_module(darwin: Plan) -> None:
    statement = darwin.link("_ggml.abi3.so")
    assert "-Wl,-rpath,@loader_path/../lib " in statement
    assert "-undefined,dynamic_lookup" in statement, "Python's symbols come from the interpreter"
    assert "libpyggml.dylib" in statement


def test_frameworks(darwin: Plan) -> None:
    assert "-framework Accelerate" in darwin.link("libggml-cpu.so")
    assert "-framework Accelerate" in darwin.link("libggml-blas.so")
    metal = darwin.link("libggml-metal.so")
    for name in ("Foundation", "Metal", "MetalKit"):
        assert f"-framework {name}" in metal
    assert "-DGGML_USE_ACCELERATE" in darwin.ninja
    assert "-DGGML_BLAS_USE_ACCELERATE" in darwin.ninja


def test_metal_library_is_embedded(darwin: Plan) -> None:
    assert "-DGGML_METAL_EMBED_LIBRARY" in darwin.ninja
    linked = set(re.findall(r"ggml-metal-embed-(\w+)\.s\.o", darwin.link("libggml-metal.so")))
    listed = (METAL / "ggml-metal-device.m").read_text().split("#define GGML_METAL_LIBS")[1].split("\n\n")[0]
    wanted = set(re.findall(r"X\(\w+, +(\w+)\)", listed))
    assert {"fa_aux", "fa_f16", "fa_q8_0", "fa_vec_f16", "fa_vec_q8_0", "mul_mm", "mul_mv"} <= wanted
    assert wanted == linked, "the back end asks for exactly these at run time"
    assert "default.metallib" not in darwin.ninja, "a file beside the library would have to be installed too"


def test_what_is_installed(darwin: Plan) -> None:
    script = (darwin.build / "cmake_install.cmake").read_text()
    found = re.findall(r'file\(INSTALL DESTINATION "\$\{CMAKE_INSTALL_PREFIX\}/(\S+)" .* FILES "\S+/(\S+)"\)', script)
    assert sorted(f"{folder}/{name}" for folder, name in found) == [
        "pyggml/_ffi/_ggml.abi3.so",
        "pyggml/lib/libggml-blas.so",
        "pyggml/lib/libggml-cpu.so",
        "pyggml/lib/libggml-metal.so",
        "pyggml/lib/libggml-rpc.so",
        "pyggml/lib/libpyggml-base.dylib",
        "pyggml/lib/libpyggml.dylib",
    ]
    ours = script.split("/ggml/cmake_install.cmake")[1].split("install_manifest")[0]
    assert ours.count("file(INSTALL") == 7
    assert 'CMAKE_INSTALL_COMPONENT STREQUAL "Unspecified"' not in ours


@pytest.fixture(scope="module")
def metal(darwin: Plan) -> dict[str, str]:
    """The Metal sources as they are embedded: the build's own commands, run here (only ``cat``, ``sed``, ``echo``)."""
    rules = re.findall(r"^build \S*/ggml-metal-embed-(\w+)\.s[ |].*?COMMAND = (.*?)$", darwin.ninja, re.M | re.S)
    folder = darwin.build / "ggml/src/ggml-metal/autogenerated"
    sources = {}
    for kind, escaped in rules:
        command = escaped.replace("$ ", " ").replace("$:", ":").replace("$$", "$")
        subprocess.run(["sh", "-c", command], check=True, cwd=darwin.build, stdout=subprocess.DEVNULL)
        assembly = (folder / f"ggml-metal-embed-{kind}.s").read_text()
        assert f'.incbin "{folder}/ggml-metal-embed-{kind}.metal"' in assembly
        assert f"_ggml_metallib_{kind}_start:" in assembly
        sources[kind] = (folder / f"ggml-metal-embed-{kind}.metal").read_text()
    assert len(sources) >= 20, "Metal's CMake has changed: read it again"
    return sources


def test_embedded_sources_stand_alone(metal: dict[str, str]) -> None:
    """They are compiled at run time, where a quoted include finds nothing."""
    for kind, text in metal.items():
        included = re.findall(r'^(.*\n)#include "(.+)"', text, re.M)
        left = [name for before, name in included if not (before == "#else\n" and name == "ggml-common.h")]
        assert left == [], f"{kind}: only builds that embed nothing may take that branch"
        assert "ggml_metal_kargs_" in text, f"{kind}: ggml-metal-impl.h is merged in"
    assert "block_q4_K" in metal["mul_mm"], "ggml-common.h is merged in"


def test_every_flash_attention_kernel_is_embedded(metal: dict[str, str]) -> None:
    """Each head size and cache type that the back end says it supports has its kernel, for prompts and for decoding."""
    device = (METAL / "ggml-metal-device.m").read_text()
    case = device.split("case GGML_OP_FLASH_ATTN_EXT:")[1].split("case GGML_OP_SSM_CONV")[0]
    heads = {int(n) for n in re.findall(r"src\[0\]->ne\[0\] != (\d+)", case)}
    types = {t.lower() for t in re.findall(r"case GGML_TYPE_(\w+):", case)}
    assert heads >= {64, 80, 96, 128, 256}
    assert types >= {"f16", "q8_0", "q4_0"}
    kernel = r'(?:host_name\("|kernel void )kernel_flash_attn_ext_(\w+)["(]'
    names = {name for text in metal.values() for name in re.findall(kernel, text)}
    sized = {match.groups() for name in names if (match := re.fullmatch(r"(\w+)_dk(\d+)_dv\d+", name))}
    have = {(kind, int(dk)) for kind, dk in sized}
    assert {(kind, dk) for kind in types for dk in heads} - have == set()
    # ggml_metal_op_flash_attn_ext_use_vec: fewer than 20 rows (decoding), heads in whole blocks of 32
    assert {(f"vec_{kind}", dk) for kind in types for dk in heads if dk % 32 == 0} - have == set()
    # Around them: padding, block masks, sums of split rows, quantized caches made f16 for long prompts.
    assert {"pad", "blk", "vec_reduce", "vec_idx", *(f"kv_{kind}_f16" for kind in types if kind[0] == "q")} <= names
    written = {name for path in (METAL / "kernels").glob("*.metal") for name in re.findall(kernel, path.read_text())}
    assert names == written, "none is lost on the way"


@pytest.mark.slow
def test_wheels_for_other_macs(configure: Configure, tmp_path: Path) -> None:
    both = plan(configure, tmp_path, "arm64", "-DGGML_CPU_ALL_VARIANTS=ON", "-DGGML_METAL=OFF")
    for name in ("libggml-cpu-apple_m1.so", "libggml-cpu-apple_m2_m3.so", "libggml-cpu-apple_m4.so"):
        assert "-Wl,-rpath,@loader_path " in both.link(name)
    assert "libggml-metal.so" not in both.ninja
