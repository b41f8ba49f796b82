"""Settings from the environment."""

from pathlib import Path

import pytest

from pyggml_server.config import SETTINGS, Config, ConfigError


def test_defaults() -> None:
    config = Config.from_environment({})
    assert config.models == Path.home() / ".ollama" / "models"
    assert config.host.url == "http://127.0.0.1:11434"
    assert Config.from_environment({"OLLAMA_MODELS": "", "OLLAMA_HOST": " "}) == config


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("0.0.0.0", "http://0.0.0.0:11434"),
        ("example.com:80", "http://example.com:80"),
        (":8080", "http://127.0.0.1:8080"),
        ("http://example.com", "http://example.com:80"),
        ("https://example.com/path", "https://example.com:443"),
        ("https://example.com:8443", "https://example.com:8443"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("[::1]", "http://[::1]:11434"),
        ("::1", "http://[::1]:11434"),
        ('"1.2.3.4:5"', "http://1.2.3.4:5"),
    ],
)
def test_hosts(text: str, url: str) -> None:
    assert Config.from_environment({"OLLAMA_HOST": text}).host.url == url


@pytest.mark.parametrize("text", ["ftp://x", "host:99999", "host:abc", "host:-1", "[::zz]:1", "host:"])
def test_bad_hosts_are_told(text: str) -> None:
    with pytest.raises(ConfigError, match=r"OLLAMA_HOST="):
        Config.from_environment({"OLLAMA_HOST": text})


def test_folders() -> None:
    assert Config.from_environment({"OLLAMA_MODELS": "~/x"}).models == Path.home() / "x"
    assert Config.from_environment({"OLLAMA_MODELS": "rel"}).models == Path.cwd() / "rel"


def test_the_table_is_complete() -> None:
    assert {s.field for s in SETTINGS} == set(Config.__dataclass_fields__)
    assert all(s.help and s.variable.startswith(("OLLAMA_", "PYGGML_")) for s in SETTINGS)
