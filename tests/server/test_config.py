"""Settings from the environment."""

import hashlib
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
        ("https://example.com/path/", "https://example.com:443/path"),
        ("[::1]:80/a/b", "http://[::1]:80/a/b"),
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


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("OLLAMA_ORIGINS", "example.com", "no origin such as"),
        ("OLLAMA_ORIGINS", "http://a.com,http://b.com/", "ends with the host or the port"),
        ("PYGGML_API_KEYS", ",", "there is no key in it"),
        ("PYGGML_API_KEYS", "@/no/such/file", "/no/such/file cannot be read: No such file"),
        ("PYGGML_API_KEYS", "@/dev/null", "no key in the file /dev/null"),
        ("PYGGML_API_KEYS", "sha256:12", "64 hexadecimal digits"),
        ("OLLAMA_NUM_PARALLEL", "64", "more than 63"),
        ("OLLAMA_NUM_PARALLEL", "-1", "not a whole number of 0 or more"),
        ("OLLAMA_CONTEXT_LENGTH", "9" * 12, "more than 2147483647"),
        ("OLLAMA_MAX_QUEUE", "0", "not a whole number of 1 or more"),
        ("OLLAMA_KEEP_ALIVE", "soon", "not a duration"),
        ("OLLAMA_LOAD_TIMEOUT", "soon", "not a duration"),
        ("OLLAMA_GPU_OVERHEAD", "-1", "not a number of bytes"),
        ("OLLAMA_SCHED_SPREAD", "perhaps", "neither true nor false"),
        ("OLLAMA_DEBUG", "loud", "neither true, false nor a number"),
        ("OLLAMA_KV_CACHE_TYPE", "q8_0,f16,f16", "more than two types"),
        ("PYGGML_KV_CACHE_TYPE_K", "q9", "not one of f32"),
        ("PYGGML_TLS_KEY", "/no/such/file", "there is no such file"),
    ],
)
def test_bad_values_are_told(variable: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_environment({variable: text})
    assert variable in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_that_do_not_go_together() -> None:
    plain = {"OLLAMA_FLASH_ATTENTION": "0"}
    with pytest.raises(ConfigError, match=r"OLLAMA_FLASH_ATTENTION=false: .* q8_0"):
        Config.from_environment({**plain, "OLLAMA_KV_CACHE_TYPE": "q8_0"})
    assert Config.from_environment({**plain, "OLLAMA_KV_CACHE_TYPE": "q8_0,f16"}).cache_type_k == "q8_0"
    with pytest.raises(ConfigError, match="belong together"):
        Config.from_environment({"PYGGML_TLS_KEY": __file__})


def test_keys_are_kept_as_hashes_and_never_told(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# mine\n  beta \n\n")
    alpha, beta = (hashlib.sha256(key).hexdigest() for key in (b"alpha", b"beta"))
    config = Config.from_environment({"PYGGML_API_KEYS": f"alpha, @{tmp_path}/keys,sha256:{alpha.upper()}"})
    assert config.api_keys == (f"sha256:{alpha}", f"sha256:{beta}", f"sha256:{alpha}")
    with pytest.raises(ConfigError) as caught:
        Config.from_environment({"PYGGML_API_KEYS": "alpha,sha256:12"})
    assert "alpha" not in str(caught.value)


def test_with_a_certificate_commands_speak_https() -> None:
    files = {"PYGGML_TLS_CERTIFICATE": __file__, "PYGGML_TLS_KEY": __file__}
    assert Config.from_environment({**files, "OLLAMA_HOST": "0.0.0.0:1/x"}).server_url == "https://127.0.0.1:1/x"
    assert Config.from_environment({"OLLAMA_HOST": "0.0.0.0:1"}).server_url == "http://127.0.0.1:1"
    here = {"0.0.0.0": True, "[::]": True, "localhost": True, "127.0.0.1:1": True, "10.1.2.3": False, "box": False}
    assert {host: Config.from_environment({"OLLAMA_HOST": host}).host.is_here for host in here} == here


def test_folders() -> None:
    assert Config.from_environment({"OLLAMA_MODELS": "~/x"}).models == Path.home() / "x"
    assert Config.from_environment({"OLLAMA_MODELS": "rel"}).models == Path.cwd() / "rel"


def test_the_table_is_complete() -> None:
    assert {s.field for s in SETTINGS} == set(Config.__dataclass_fields__)
    assert all(s.help and s.variable.startswith(("OLLAMA_", "PYGGML_")) for s in SETTINGS)
