"""create, cp, export, import, push and pull as commands."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from helpers.registry import running_registry
from helpers.tiny import TinyModel
from pyggml_server.cli.main import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; the store is in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    return tmp_path


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def _ok(*arguments: str) -> str:
    result = _run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_from_a_modelfile_to_an_archive_and_back(folder: Path, tiny: TinyModel) -> None:
    (folder / "Modelfile").write_text(f'FROM {tiny.path}\nSYSTEM """brief"""\nPARAMETER low_vram 1\n')
    assert "line 3: parameter 'low_vram' means nothing" in _run("create", "mine", "-q", "q8_0").stderr
    assert "Q8_0" in _ok("show", "mine") and "brief" in _ok("show", "mine")
    assert _ok("cp", "mine", "other") == "copied 'mine' to 'other'\n"
    _ok("export", "other", "m.tar")
    _ok("rm", "mine", "other")
    assert _ok("import", "m.tar").startswith("other:latest: ")
    assert "brief" in _ok("show", "other")
    assert sorted(path.name for path in folder.iterdir()) == ["Modelfile", "m.tar", "models"]


def test_without_a_modelfile_the_folder_is_the_model(folder: Path, tiny: TinyModel) -> None:
    (folder / "weights.gguf").symlink_to(tiny.path)
    assert "insecure path" in _run("create", "mine").stderr
    (folder / "weights.gguf").unlink()
    (folder / "weights.gguf").write_bytes(tiny.path.read_bytes())
    _ok("create", "mine")
    assert "mine:latest" in _ok("list")


def test_mistakes(folder: Path) -> None:
    (folder / "bad").write_text("FROM x\nFORM y")
    assert "Error: line 2: unknown command 'FORM'" in _run("create", "mine", "-f", "bad").stderr
    (folder / "bad").write_text("FROM ./nothing.gguf")
    assert "nothing.gguf: there is no such file" in _run("create", "mine", "-f", "bad").stderr
    (folder / "bad.tar").write_bytes(b"x" * 2000)
    assert "the archive is damaged" in _run("import", "bad.tar").stderr
    assert "not found" in _run("export", "nothing", "x.tar").stderr and not (folder / "x.tar").exists()
    assert "not found" in _run("cp", "nothing", "x").stderr


def test_push_and_pull(folder: Path, tiny: TinyModel) -> None:
    (folder / "Modelfile").write_text(f"FROM {tiny.path}\n")
    with running_registry() as registry:
        name = f"{registry.url}/me/x"
        _ok("create", name)
        _ok("push", name)
        _ok("rm", name)
        assert _ok("pull", name, "--as", "here").startswith("here:latest: ")
    assert "here:latest" in _ok("list") and "me/x" not in _ok("list")


def test_show_prints_one_part(folder: Path, tiny: TinyModel) -> None:
    (folder / "Modelfile").write_text(
        f'FROM {tiny.path}\nSYSTEM brief\nTEMPLATE "{{{{ .Prompt }}}}"\nPARAMETER num_ctx 64\nPARAMETER stop a\n'
        "PARAMETER stop b\nLICENSE free\nMESSAGE user hi\n"
    )
    _ok("create", "mine")
    assert _ok("show", "mine", "--license") == "free\n"
    assert _ok("show", "mine", "--system") == "brief\n"
    assert _ok("show", "mine", "--template") == "{{ .Prompt }}\n"
    stops = [f"stop                           {value}" for value in ('"a"', '"b"')]
    assert sorted(_ok("show", "mine", "--parameters").splitlines()) == ["num_ctx                        64", *stops]
    (folder / "printed").write_text(_ok("show", "mine", "--modelfile"))
    _ok("create", "again", "-f", "printed")
    for part in ("license", "system", "template", "parameters"):
        assert _ok("show", "again", f"--{part}") == _ok("show", "mine", f"--{part}")
    assert "--system and --modelfile print one text each" in _run("show", "mine", "--system", "--modelfile").stderr
    assert "give no other option" in _run("show", "mine", "--system", "--json").stderr
    assert "is for models in the store" in _run("show", str(tiny.path), "--system").stderr


def test_blobs_stay_where_the_settings_say_so(folder: Path, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "Modelfile").write_text(f"FROM {tiny.path}\nSYSTEM one\n")
    _ok("create", "mine")
    blobs = {path.name for path in (folder / "models" / "blobs").iterdir()}
    monkeypatch.setenv("OLLAMA_NOPRUNE", "1")
    (folder / "Modelfile").write_text("FROM mine\nSYSTEM two\n")
    _ok("create", "mine")
    assert blobs < {path.name for path in (folder / "models" / "blobs").iterdir()}
    _ok("create", "mine", "-f", str(folder / "Modelfile"))
    monkeypatch.delenv("OLLAMA_NOPRUNE")
    (folder / "Modelfile").write_text("FROM mine\nSYSTEM three\n")
    before = len(list((folder / "models" / "blobs").iterdir()))
    _ok("create", "mine")
    assert len(list((folder / "models" / "blobs").iterdir())) == before


def test_help(folder: Path) -> None:
    assert "Commands:" in _ok("help") and _ok("help", "pull") == _ok("pull", "--help")
    assert "No such command 'nothing'" in _run("help", "nothing").stderr
