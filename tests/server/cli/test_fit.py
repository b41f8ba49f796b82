"""``pyggml fit``, and the options that spread a model over devices."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from helpers.rpc import rpc_server
from helpers.tiny import TinyConfig, TinyModel, build
from pyggml.tensor import Device
from pyggml_server.cli.main import main


def pyggml(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args], prog_name="pyggml")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with rpc_server() as endpoint:
        yield f"rpc://{endpoint}"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a few MiB with 64 KiB of keys and values per token."""
    path = tmp_path_factory.mktemp("models") / "wide.gguf"
    return build(path, TinyConfig(n_layer=32, n_head_kv=4, d_head=64, n_ctx_train=2**22)).path


def test_table(tiny: TinyModel) -> None:
    result = pyggml("fit", tiny.path, "-t", 1, "--num-ctx", 512, "--layers")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "3 layers with the output, context 512 × 1, batch 512, cache f16/f16, flash attention on" in lines[0]
    assert lines[2].split() == ["MiB", "layers", "weights", "KV", "cache", "compute", "needed", "free"]
    name, layers, weights, cache, compute, needed, free = lines[3].split()
    assert (name, layers) == ("CPU", "3") and float(cache) == 0.2  # 512 cells, 2 layers, 2 heads of 32, K and V
    assert float(needed) == pytest.approx(float(weights) + float(cache) + float(compute), abs=0.2)
    assert float(free.replace(",", "")) > 100
    assert [line.split()[0] for line in lines[6:9]] == ["0", "1", "output"]
    assert lines[-1] == "It fits."


def test_json_on_two_devices(server: str, tiny: TinyModel) -> None:
    args = ("--device", server, "-ngl", 2, "-ot", "ffn_up=CPU", "-np", 3, "--num-ctx", 256, "-t", 1)
    result = pyggml("fit", tiny.path, *args, "--cache-type-k", "q8_0", "--json")
    assert result.exit_code == 0, result.output
    d = json.loads(result.stdout)
    assert d["fits"] and (d["layers"], d["n_gpu_layers"], d["most_gpu_layers"]) == (3, 2, None)
    assert (d["n_ctx"], d["n_parallel"], d["type_k"], d["type_v"]) == (256, 3, "q8_0", "f16")
    rpc, cpu = d["devices"]
    assert rpc["name"].startswith("RPC") and cpu["name"] == "CPU"
    assert (rpc["layers"], cpu["layers"]) == (2, 1)
    cells, row = 768, 2 * 32
    assert rpc["kv_cache"] == cpu["kv_cache"] == cells * (row * 2 + row // 32 * 34)
    for device in d["devices"]:
        assert device["needed"] == device["weights"] + device["kv_cache"] + device["compute"] < device["free"]
    rows = {str(row["layer"]): row["bytes"] for row in d["by_layer"]}
    assert rows["0"][rpc["name"]] == 0 and rows["1"]["CPU"] == 64 * 96 * 4, "the rule keeps one matrix there"
    assert rows["output"][rpc["name"]] > 0


def test_what_does_not_fit(wide: Path) -> None:
    result = pyggml("fit", wide, "--num-ctx", 2**22, "-t", 1)
    assert result.exit_code == 3, result.output
    assert "It does not fit: CPU lacks " in result.stdout and "Smaller: the KV cache by --num-ctx" in result.stdout
    assert json.loads(pyggml("fit", wide, "--num-ctx", 2**22, "-t", 1, "--json").stdout)["fits"] is False
    assert pyggml("fit", wide, "--num-ctx", 256, "-t", 1).exit_code == 0


def test_how_many_layers_would_fit(server: str, wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Device.memory
    monkeypatch.setattr(Device, "memory", lambda self: memory(self) if self.is_cpu else (100 * 2**20, 2**30))
    base = ("fit", wide, "--num-ctx", 4096, "-t", 1, "-b", 64, "--memory-margin", 0)
    for args in (("--device", server, "-ngl", 99), ("--device", server, "-ngl", 40)):
        result = pyggml(*base, *args)
        assert result.exit_code == 3 and " lacks " in result.stdout
        (line,) = [line for line in result.stdout.splitlines() if "would fit" in line]
        n = int(line.split()[-1])
        assert line == f"{n} of 33 layers would fit: --n-gpu-layers {n}" and 5 < n < 32
    assert pyggml(*base, "--device", server, "-ngl", n).exit_code == 0
    assert pyggml(*base, "--device", server, "-ngl", n + 1).exit_code == 3
    automatic = json.loads(pyggml(*base, "--device", server, "--json").stdout)
    assert automatic["n_gpu_layers"] == n and automatic["fits"]


def test_run_and_bench_take_the_options(server: str, tiny: TinyModel) -> None:
    args = (tiny.path, "-t", 1, "--device", server, "-ngl", 2, "--no-kv-offload", "-ts", "1", "--n-cpu-moe", 1)
    alone = pyggml("run", tiny.path, "the", "--num-predict", 8, "--temperature", 0, "-t", 1)
    spread = pyggml("run", *args, "the", "--num-predict", 8, "--temperature", 0)
    assert spread.exit_code == 0 and spread.stdout == alone.stdout, spread.output
    document = json.loads(pyggml("bench", *args, "-p", 8, "-n", 4, "-r", 1, "--json").stdout)
    assert document["device"].startswith("RPC") and document["device"].endswith("+CPU")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("-ngl", -2), "-2 is not in the range"),
        (("-ts", "1,x"), "no list of numbers such as 3,1"),
        (("-ot", "ffn"), "PATTERN=DEVICE"),
        (("-ot", "=CPU"), "PATTERN=DEVICE"),
        (("-np", 0), "0 is not in the range"),
        (("--num-ctx", 0), "0 is not in the range"),
    ],
    ids=str,
)
def test_nonsense_is_a_usage_error(tiny: TinyModel, args: tuple[object, ...], message: str) -> None:
    result = pyggml("fit", tiny.path, *args)
    assert result.exit_code == 2 and message in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--device", "TPU7"), "no device 'TPU7'"),
        (("--device", "rpc://127.0.0.1:1"), "no RPC server at 127.0.0.1:1"),
        (("--device", "rpc://x"), "an RPC endpoint is host:port"),
        (("-ts", "1,1"), "2 proportions for 0 devices"),
        (("-ot", "ffn=CUDA0"), "not among the devices (CPU)"),
        (("-ot", "ffn(=CPU"), "no regular expression"),
    ],
    ids=str,
)
def test_errors_are_one_line(tiny: TinyModel, args: tuple[object, ...], message: str) -> None:
    result = pyggml("fit", tiny.path, *args)
    assert result.exit_code == 1 and message in result.stderr and result.stderr.count("\n") == 1, result.stderr
