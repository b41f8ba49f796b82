"""``pyggml run`` with a tiny model, and with a real one (marker model)."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest
from click.testing import CliRunner, Result

from helpers.tiny import TinyConfig, TinyModel, build
from pyggml_server.cli.main import main

Run = Callable[..., Result]
QUICK = ("--threads", "1", "--num-ctx", "128")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs pyggml with a store of its own."""
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)

    def call(*args: object, input: str | None = None) -> Result:
        return CliRunner().invoke(main, [str(arg) for arg in args], prog_name="pyggml", input=input)

    return call


def ok(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def error(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: ") and "Traceback" not in result.stderr
    return last


def answer(run: Run, tiny: TinyModel, *args: object, **options: str) -> str:
    return ok(run("run", tiny.path, *QUICK, "--num-predict", 12, *args, **options))


def test_a_prompt_is_continued(run: Run, tiny: TinyModel) -> None:
    text = answer(run, tiny, "hello", "the", "--seed", 3)
    assert text.endswith("\n") and len(text) > 3
    assert text == answer(run, tiny, "hello the", "--seed", 3)
    assert text != answer(run, tiny, "hello the", "--seed", 4)
    assert answer(run, tiny, "hello the", "--temperature", 0) == answer(run, tiny, "hello the", "--top-k", 1)


def test_piped_text_comes_first(run: Run, tiny: TinyModel) -> None:
    both = answer(run, tiny, "the end", "--temperature", 0, input="some text")
    assert both == answer(run, tiny, "some text\n\nthe end", "--temperature", 0)
    assert answer(run, tiny, "--temperature", 0, input="some text") == answer(
        run, tiny, "some text", "--temperature", 0
    )


def test_stop_and_num_predict(run: Run, tiny: TinyModel) -> None:
    greedy = ("hello", "--temperature", 0)
    text = answer(run, tiny, *greedy)
    assert answer(run, tiny, *greedy, "--stop", text[2:4]) == text[: text.index(text[2:4])] + "\n"
    assert text.startswith(ok(run("run", tiny.path, *QUICK, *greedy, "--num-predict", 3)).rstrip("\n"))


def test_verbose_goes_to_standard_error(run: Run, tiny: TinyModel) -> None:
    result = run("run", tiny.path, *QUICK, "hello", "--verbose", "--num-predict", 5, "--temperature", 0)
    assert "eval" not in ok(result)
    lines = dict(re.split(r": +", line, maxsplit=1) for line in result.stderr.splitlines())
    assert lines["prompt eval count"] == "6 tokens (0 cached)"
    assert lines["eval count"] == "5 tokens" and lines["done reason"] == "length"
    for label in ("prompt eval rate", "eval rate"):
        number, unit = lines[label].split()
        assert float(number) > 0 and unit == "tokens/s"
    assert all(float(lines[label].split()[0]) >= 0 for label in ("load duration", "eval duration"))


def templated(folder: Path) -> TinyModel:
    """Its template writes the beginning of text itself."""
    template = (
        "{{ bos_token }}{% for message in messages %}{{ message.role[:1] }} {{ message.content }} {% endfor %}"
        "{% if add_generation_prompt %}a {% endif %}"
    )
    return build(
        folder / "chat.gguf",
        TinyConfig(n_ctx_train=256),
        change=lambda meta, weights: meta.update({"tokenizer.chat_template": template}),
    )


def test_templates(run: Run, tiny: TinyModel, tmp_path: Path) -> None:
    chat = templated(tmp_path)
    greedy = ("--temperature", 0)
    through = answer(run, chat, "hello", *greedy)
    assert through == answer(run, tiny, "u hello a ", *greedy)
    assert answer(run, chat, "hello", "--raw", *greedy) == answer(run, tiny, "hello", *greedy) != through
    system = answer(run, chat, "hello", "--system", "be calm", *greedy)
    assert system == answer(run, tiny, "s be calm u hello a ", *greedy)


def test_the_stored_template_and_messages_hold(run: Run, tiny: TinyModel, tmp_path: Path) -> None:
    """A Go template in the store comes before the Jinja template in the file."""
    template = "{{ range .Messages }}{{ .Role }} {{ .Content }} {{ end }}so "
    (tmp_path / "Modelfile").write_text(
        f'FROM {templated(tmp_path).path}\nTEMPLATE "{template}"\nSYSTEM be calm\n'
        "MESSAGE user hi\nMESSAGE assistant yes\n"
    )
    ok(run("create", "mine"))
    greedy = (*QUICK, "--num-predict", 12, "--temperature", 0)
    expected = ok(run("run", tiny.path, *greedy, "system be calm user hi assistant yes user hello so "))
    assert ok(run("run", "mine", *greedy, "hello")) == expected
    assert ok(run("run", "mine", *greedy, "hello", "--raw")) == ok(run("run", tiny.path, *greedy, "be calmhello"))


def test_the_stored_parameters_hold_unless_given(run: Run, tiny: TinyModel) -> None:
    ok(run("pull", tiny.path, "--as", "tiny"))
    name = ("run", "tiny", *QUICK, "hello", "--num-predict", 8)
    assert ok(run(*name, "--seed", 5)) == ok(run("run", tiny.path, *QUICK, "hello", "--num-predict", 8, "--seed", 5))
    document = json.dumps({"seed": 6, "stop": ["zzzz"], "num_predict": 4}).encode()
    add_parameters(Path("models"), document)
    stored = ok(run("run", "tiny", *QUICK, "hello"))
    assert stored == ok(run("run", tiny.path, *QUICK, "hello", "--seed", 6, "--num-predict", 4))
    assert ok(run(*name, "--seed", 5)) == ok(run("run", tiny.path, *QUICK, "hello", "--num-predict", 8, "--seed", 5))
    add_parameters(Path("models"), json.dumps({"temperature": "hot"}).encode())
    assert "temperature must be a number, got 'hot'" in error(run(*name))


def add_parameters(store: Path, document: bytes) -> None:
    """Put Ollama's layer of parameters into the only manifest."""
    import hashlib

    digest = "sha256:" + hashlib.sha256(document).hexdigest()
    (store / "blobs" / digest.replace(":", "-")).write_bytes(document)
    (path,) = (p for p in (store / "manifests").rglob("*") if p.is_file())
    manifest = json.loads(path.read_text())
    kind = "application/vnd.ollama.image.params"
    layers = [layer for layer in manifest["layers"] if layer["mediaType"] != kind]
    manifest["layers"] = [*layers, {"mediaType": kind, "digest": digest, "size": len(document)}]
    path.write_text(json.dumps(manifest))


def test_errors_are_one_line(run: Run, tiny: TinyModel, tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF\3\0\0\0")
    assert "bad.gguf: tensor count" in error(run("run", "./bad.gguf", "hi"))
    assert "absent.gguf: No such file" in error(run("run", "./absent.gguf", "hi"))
    assert "absent" in error(run("run", "absent", "hi"))
    assert "bert only embeds" in error(run("run", tiny_bert, "hi"))
    assert "do not fit into a context of 4" in error(run("run", tiny.path, "--num-ctx", 4, "hello the end"))
    assert "repeat_last_n" in error(run("run", tiny.path, *QUICK, "hi", "--repeat-last-n", -2))
    assert "V cache needs flash" in error(run("run", tiny.path, "hi", "--no-flash-attn", "--cache-type-v", "q8_0"))
    assert "no device 'TPU'" in error(run("run", tiny.path, "hi", "--device", "TPU")).replace('"', "'")
    assert run("run", tiny.path, "--num-ctx", 0, "hi").exit_code == 2
    assert run("run", tiny.path, "--cache-type-k", "q3", "hi").exit_code == 2


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *args: object) -> None:
        self.master, slave = pty.openpty()
        command = [sys.executable, "-m", "pyggml_server.cli.main", *(str(arg) for arg in args)]
        # A test run started in the background ignores interrupts, and its children would inherit that.
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        os.close(slave)
        self.seen = ""

    def wait_for(self, text: str, *, count: int = 1, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while self.seen.count(text) < count:
            assert self._read(end - time.monotonic()), f"waited for {text!r}, saw {self.seen!r}"

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], max(0.0, seconds))
        try:
            data = os.read(self.master, 4096) if ready else b""
        except OSError:  # Linux: the other side is closed
            data = b""
        self.seen += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)

    def wait_for_length(self, length: int) -> None:
        """Wait until so many characters were seen."""
        while len(self.seen) < length:
            assert self._read(60.0), f"waited for {length} characters, saw {self.seen!r}"

    def say(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self) -> int:
        """Wait until the command has ended by itself."""
        return self.process.wait(timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


COUNTS = re.compile(r"prompt eval count: +(\d+) tokens \((\d+) cached\)")


def test_a_conversation_on_a_terminal(tmp_path: Path) -> None:
    chat = templated(tmp_path)
    with Terminal("run", chat.path, *QUICK, "--num-predict", 5, "--temperature", 0, "--verbose") as terminal:
        terminal.wait_for(">>> ")
        terminal.say("hello\n")
        terminal.wait_for(">>> ", count=2)
        assert "done reason:" in terminal.seen
        terminal.say("\n  \nand then\n")
        terminal.wait_for("done reason:", count=2)
        (first, _), (second, cached) = COUNTS.findall(terminal.seen)
        # What was said stays in the cache: the second prompt goes on behind the first.
        assert int(first) <= int(cached) < int(second)
        terminal.wait_for(">>> ", count=5)
        terminal.say("/bye\n")
        assert terminal.end() == 0


def test_the_end_of_input_ends_a_conversation(tiny: TinyModel) -> None:
    with Terminal("run", tiny.path, *QUICK) as terminal:
        terminal.wait_for(">>> ")
        terminal.say("\x04")
        assert terminal.end() == 0


def test_ctrl_c_stops_the_answer_and_not_the_conversation(tiny: TinyModel) -> None:
    """With the largest context it would talk for minutes."""
    with Terminal("run", tiny.path, "--threads", 1, "--num-ctx", 100_000, "--top-k", 1, "--seed", 1) as terminal:
        terminal.wait_for(">>> ")
        terminal.say("hello\n")
        begun = len(terminal.seen) + 20
        terminal.wait_for_length(begun)
        terminal.process.send_signal(signal.SIGINT)
        terminal.wait_for("[stopped]")
        terminal.wait_for(">>> ", count=2)
        terminal.say("/bye\n")
        assert terminal.end() == 0


@pytest.mark.model
def test_a_real_model_streams(smollm2_path: Path) -> None:
    with Terminal("run", smollm2_path, *QUICK, "--num-predict", 80, "--temperature", 0, "Tell me a long story.") as t:
        t.wait_for("story")
        assert t.process.poll() is None, t.seen  # text comes while more is computed
        begun = len(t.seen)
        assert t.end() == 0
        t.wait_for_length(begun + 100)


@pytest.mark.model
def test_a_real_model_answers(run: Run, smollm2_path: Path) -> None:
    options = ("run", smollm2_path, *QUICK, "--num-predict", 16, "--temperature", 0)
    text = ok(run(*options, "What is 2+2?"))
    assert "4" in text and "<|im_" not in text
    assert ok(run(*options, "--raw", "The capital of France is")).startswith(" Paris")
