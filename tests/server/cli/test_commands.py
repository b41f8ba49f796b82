"""pull, list, show and rm through click's runner."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pyggml.gguf import GGMLType, GGUFWriter
from pyggml_server.cli.main import COMMANDS, main

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs pyggml with a store of its own."""
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(main, list(args), prog_name="pyggml")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    writer = GGUFWriter(tmp_path / "tiny.gguf", architecture="llama")
    writer.add("general.file_type", 2)
    writer.add("llama.block_count", 3)
    writer.add("tokenizer.ggml.tokens", [f"t{i}" for i in range(20)])
    writer.add("tokenizer.ggml.scores", np.arange(20, dtype=np.float32))
    writer.add("tokenizer.chat_template", "x" * 1000)
    writer.add("raw", b"\xff")
    writer.add_tensor("blk.0.w", bytes(18 * 64), type=GGMLType.Q4_0, shape=(64, 32))
    writer.write()
    return tmp_path / "tiny.gguf"


def ok(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def error(result: Result) -> str:
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def test_pull_list_show_rm(run: Run, model: Path, tmp_path: Path) -> None:
    assert ok(run("list")) == "NAME    ID    SIZE    MODIFIED\n"
    result = run("pull", "./tiny.gguf")
    assert ok(result).startswith("tiny:latest: 2K, ")
    assert result.stderr.splitlines() == ["storing tiny.gguf", "writing manifest", "success"]
    ok(run("pull", str(model), "--as", "me/other:v1"))
    os.utime(tmp_path / "models/manifests/registry.ollama.ai/library/tiny/latest", (time.time() - 7300,) * 2)
    lines = ok(run("list")).splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "me/other:v1", "tiny:latest"]
    assert lines[2].endswith("2 hours ago") and len(lines[2].split()[1]) == 12
    assert ok(run("ls", "TI")).count("\n") == 2
    assert "name              tiny:latest" in ok(run("show", "TINY"))
    assert ok(run("rm", "tiny", "me/other:v1")) == "deleted 'tiny:latest'\ndeleted 'me/other:v1'\n"
    assert list((tmp_path / "models" / "blobs").iterdir()) == []


def test_show_a_file(run: Run, model: Path) -> None:
    text = ok(run("show", str(model)))
    assert "quantization      Q4_0" in text and "llama.block_count" in text
    assert '["t0", "t1", "t2", "t3", "t4", "…"]' in text and '[0.0, 1.0, 2.0, 3.0, 4.0, "…"]' in text
    assert "x" * 200 + "…" in text and "x" * 201 not in text
    assert "blk.0.w" not in text
    text = ok(run("show", "tiny.gguf", "--tensors", "--verbose"))
    assert '"t19"]' in text and "19.0]" in text and "x" * 1000 in text
    assert "blk.0.w  Q4_0     64 × 32" in text


def test_show_json(run: Run, model: Path) -> None:
    document = json.loads(ok(run("show", str(model), "--json")))
    assert document["parameters"] == 64 * 32 and document["quantization"] == "Q4_0"
    assert document["metadata"]["llama.block_count"] == {"type": "uint32", "value": 3}
    assert document["metadata"]["tokenizer.ggml.tokens"]["value"][-1] == "…"
    assert "tensors" not in document
    document = json.loads(ok(run("show", str(model), "--json", "--tensors", "--verbose")))
    assert document["tensors"][0]["shape"] == [64, 32] and document["tensors"][0]["bytes"] == 18 * 64
    assert len(document["metadata"]["tokenizer.ggml.scores"]["value"]) == 20


def test_errors_are_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF\3\0\0\0")
    assert "bad.gguf: tensor count" in error(run("show", "./bad.gguf"))
    assert "absent.gguf: No such file or directory" in error(run("show", "./absent.gguf"))
    assert "model 'absent:latest' not found" in error(run("show", "absent"))
    assert "not found" in error(run("rm", "absent"))
    assert "invalid model name" in error(run("rm", "../x"))
    result = run("pull", "http://127.0.0.1:9/a/b")
    assert result.exit_code == 1 and "Error: 127.0.0.1:9 cannot be reached" in result.stderr
    assert "invalid model name" in error(run("pull", "./bad.gguf", "--as", "a b"))
    assert "bad.gguf: tensor count" in error(run("pull", "./bad.gguf"))


def test_nothing_is_removed_when_one_name_is_invalid(run: Run, model: Path) -> None:
    ok(run("pull", str(model)))
    error(run("rm", "tiny", ".."))
    assert "tiny:latest" in ok(run("list"))


def test_a_bad_setting_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "host:port")
    assert "OLLAMA_HOST='host:port'" in error(run("list"))


def test_help_lists_the_table_and_imports_no_command(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['pyggml', '--help']\n"
        "from pyggml_server.cli.main import main\n"
        "try: main()\n"
        "finally: print([m for m in sys.modules if m in ('numpy', 'rich', 'pyggml_server.store')], "
        "file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"
    for name, (_, text) in COMMANDS.items():
        assert f"  {name} " in result.stdout and text in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(run: Run, name: str) -> None:
    assert ok(run(name, "--help")).startswith(f"Usage: pyggml {name}")


def test_an_unknown_command(run: Run) -> None:
    result = run("nothing")
    assert result.exit_code == 2 and "No such command 'nothing'" in result.stderr
