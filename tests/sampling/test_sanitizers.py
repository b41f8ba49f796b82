"""The C of the sampler under AddressSanitizer and UndefinedBehaviorSanitizer, with random rows and options (fuzz.c)."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FFI = ROOT / "src/pyggml/_ffi"
SOURCES = ["sampler.c", "sampler_chain.c", "sampler_history.c", "sampler_logprobs.c"]  # fuzz.c includes sampler_rows.c
FLAGS = ["-g", "-O1", "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shlex.split(os.environ.get("CC", "cc"))
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "empty.c").write_text("int main(void) { return 0; }\n", encoding="utf-8")
    probe = [*compiler, *FLAGS, str(folder / "empty.c"), "-o", str(folder / "empty")]
    if subprocess.run(probe, capture_output=True).returncode or subprocess.run([folder / "empty"]).returncode:
        pytest.skip(f"{compiler[0]} has no sanitizers here")
    sources = [Path(__file__).with_name("fuzz.c"), *(FFI / name for name in SOURCES)]
    command = [*compiler, *FLAGS, f"-I{FFI}", *map(str, sources), "-o", str(folder / "fuzz"), "-lm"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return folder / "fuzz"


@pytest.mark.build
@pytest.mark.parametrize("seed", [1, 2])
def test_random_rows_and_options(fuzz: Path, seed: int) -> None:
    run = subprocess.run([fuzz, "500", str(seed)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr[-4000:]
