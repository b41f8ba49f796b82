"""The grammar of model names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyggml_server.errors import InvalidNameError
from pyggml_server.names import Name


@pytest.mark.parametrize(
    ("text", "parts", "display"),
    [
        ("smollm2", ("registry.ollama.ai", "library", "smollm2", "latest"), "smollm2:latest"),
        ("smollm2:135m", ("registry.ollama.ai", "library", "smollm2", "135m"), "smollm2:135m"),
        ("user/model", ("registry.ollama.ai", "user", "model", "latest"), "user/model:latest"),
        ("hf.co/user/repo.v1:Q4_K_M", ("hf.co", "user", "repo.v1", "Q4_K_M"), "hf.co/user/repo.v1:Q4_K_M"),
        ("localhost:5000/a/b", ("localhost:5000", "a", "b", "latest"), "localhost:5000/a/b:latest"),
        ("https://hf.co/a/b:c", ("hf.co", "a", "b", "c"), "hf.co/a/b:c"),
        ("_x:1.5-b", ("registry.ollama.ai", "library", "_x", "1.5-b"), "_x:1.5-b"),
    ],
)
def test_parse(text: str, parts: tuple[str, ...], display: str) -> None:
    name = Name.parse(text)
    assert name.parts == parts
    assert name.display == str(name) == display
    assert Name.parse(display) == name


def test_defaults_are_left_out_in_any_case() -> None:
    assert Name.parse("Registry.Ollama.AI/Library/X:Y").display == "X:Y"
    assert Name.parse("Registry.Ollama.AI/me/x").display == "me/x:latest"
    assert Name.parse("HF.co/library/x").display == "HF.co/library/x:latest"


@pytest.mark.parametrize(
    ("part", "length"), [("model", 80), ("tag", 80), ("namespace", 80), ("host", 350)], ids=lambda value: str(value)
)
def test_the_longest_parts(part: str, length: int) -> None:
    fields = {"model": "m", "tag": "t", "namespace": "n", "host": "h"}
    assert getattr(Name(**fields | {part: "x" * length}), part) == "x" * length
    with pytest.raises(InvalidNameError, match=f"the {part} "):
        Name(**fields | {part: "x" * (length + 1)})


@pytest.mark.parametrize("text", ["h/n.n/m", "h/n:n/m", "h/n/m@sha256", "h/n/m:t:t", "ftp://h/n/m", "h/x/n/m"])
def test_what_only_some_parts_may_hold(text: str) -> None:
    with pytest.raises(InvalidNameError):
        Name.parse(text)


def test_scheme_is_kept_and_not_compared() -> None:
    name = Name.parse("http://host:80/a/b")
    assert name.scheme == "http"
    assert name == Name.parse("host:80/a/b")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ":",
        "a:",
        ":tag",
        "/",
        "a/",
        "/a",
        "a//b",
        "..",
        "../a",
        "a/..",
        "a:..",
        "../../etc/passwd",
        "a/b/../c",
        "-a",
        ".a",
        "a:-b",
        "a b",
        "a\\b",
        "a\0",
        "a\n",
        "ä",
        "name.space/a",
        "host/ns/mo:del:tag",
        "ftp://host/a/b",
        "a@sha256:abc",
        "x" * 81,
        "a:" + "t" * 81,
        "h" * 351 + "/a/b",
    ],
)
def test_bad_names(text: str) -> None:
    with pytest.raises(InvalidNameError, match="invalid model name"):
        Name.parse(text)


@given(st.text(alphabet="aZ0_-.:/\\@ \0é", max_size=30))
def test_no_name_leads_out_of_a_folder(text: str) -> None:
    try:
        name = Name.parse(text)
    except InvalidNameError:
        return
    for part in name.parts:
        assert part not in ("", ".", "..") and not set(part) & set("/\\\0")
    assert Name.parse(name.display) == name
