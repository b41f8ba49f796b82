"""``pyggml bench`` with a tiny model."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from helpers.tiny import TinyModel
from pyggml_server.cli.main import main


def bench(*args: object) -> Result:
    return CliRunner().invoke(main, ["bench", *(str(arg) for arg in args)], prog_name="pyggml")


def test_json(tiny: TinyModel) -> None:
    result = bench(tiny.path, "-p", 32, "-n", 8, "-r", 3, "-t", 1, "-b", 16, "--cache-type-k", "q8_0", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [r["test"] for r in document["results"]] == ["pp32", "tg8"]
    for r in document["results"]:
        assert len(r["samples"]) == 3 and min(r["samples"]) > 0
        assert r["median"] == sorted(r["samples"])[1]
        assert r["mean"] == pytest.approx(sum(r["samples"]) / 3)
    assert document["model"] == str(tiny.path) and document["architecture"] == "llama"
    assert document["device"] == "CPU" and document["description"] and document["n_threads"] == 1
    assert document["flash_attn"] is True
    assert (document["type_k"], document["type_v"]) == ("q8_0", "f16")
    assert 0.5 < document["graph_reuse"] < 1 and 0 < document["python_share"] < 1
    assert sum(document["weights"].values()) > 100_000
    assert 20 * 2**20 < document["peak_rss_bytes"] < 2**40


def test_depth_and_one_test_alone(tiny: TinyModel) -> None:
    result = bench(tiny.path, "-p", 0, "-n", 4, "-d", 40, "-r", 1, "-t", 1, "--no-flash-attn", "--json")
    document = json.loads(result.stdout)
    assert [r["test"] for r in document["results"]] == ["tg4 @ d40"]
    assert document["flash_attn"] is False
    document = json.loads(bench(tiny.path, "-p", 8, "-n", 0, "-r", 1, "-t", 1, "--json").stdout)
    assert [r["test"] for r in document["results"]] == ["pp8"]


def test_table(tiny: TinyModel) -> None:
    result = bench(tiny.path, "-p", 16, "-n", 4, "-r", 2, "-t", 1)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split()[:4] == ["model", "device", "threads", "test"]
    assert "pp16" in lines[1] and "tg4" in lines[2] and float(lines[1].split()[-2]) > 0
    assert "flash attention on, cache f16/f16" in lines[-1] and "peak memory" in lines[-1]


@pytest.mark.parametrize(
    "args",
    [("-p", 0, "-n", 0), ("-p", -1), ("-r", 0), ("-d", -5), ("-t", 0), ("-b", 0), ("--cache-type-v", "x")],
    ids=str,
)
def test_nonsense_is_a_usage_error(tiny: TinyModel, args: tuple[object, ...]) -> None:
    result = bench(tiny.path, *args)
    assert result.exit_code == 2 and "Usage:" in result.stderr and "Error: " in result.stderr


def test_errors_are_one_line(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    for args, message in (
        ((tiny_bert,), "bert only embeds"),
        (("nothing-of-that-name",), "not found"),
        ((tmp_path / "absent.gguf",), "absent.gguf: No such file"),
    ):
        result = bench(*args)
        assert result.exit_code == 1 and message in result.stderr and result.stderr.count("\n") == 1, result.stderr
