"""Durations and keep-alive, by Go's grammar."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyggml_server.config import Config, ConfigError, KeepAlive, format_duration, parse_duration
from pyggml_server.errors import BadRequestError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("5s", 5), ("1h30m", 5400), ("1.5h", 5400), (".5s", 0.5), ("5.s", 5), ("-1.5h", -5400), ("+5s", 5),
     ("300ms", 0.3), ("10us", 1e-5), ("10µs", 1e-5), ("10μs", 1e-5), ("7ns", 7e-9), ("1h1h", 7200)],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-", "1h5", "5d", "1e3s", "1..5s", ".s", "3000000h", "٣s"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


@given(st.integers(-(10**15), 10**15))
def test_what_is_printed_is_read(nanoseconds: int) -> None:
    assert round(parse_duration(format_duration(nanoseconds / 10**9)) * 10**9) == pytest.approx(nanoseconds, abs=1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(300, "5m0s"), (5400, "1h30m0s"), (1.5, "1.5s"), (0.3, "300ms"), (0, "0s"), (-61.5, "-1m1.5s"), (3600, "1h0m0s")],
)
def test_format(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(0, 0), (300, 300), (0.5, 0.5), (-1, math.inf), ("5m", 300), ("-1", math.inf), ("-1s", math.inf), ("0", 0),
     ("60", 60), (10**12, math.inf), (10**400, math.inf), (-(10**400), math.inf), (-0.001, math.inf)],
)  # fmt: skip
def test_keep_alive(value: object, seconds: float) -> None:
    keep_alive = KeepAlive.parse(value)
    assert keep_alive.seconds == seconds
    assert KeepAlive.parse(str(keep_alive)) == keep_alive
    assert keep_alive.forever == math.isinf(seconds)


@pytest.mark.parametrize("value", [None, True, [], "soon", "", math.nan, {"seconds": 1}])
def test_bad_keep_alive(value: object) -> None:
    with pytest.raises(BadRequestError, match="keep_alive"):
        KeepAlive.parse(value)


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("OLLAMA_LOAD_TIMEOUT", "0", "load_timeout", None),
        ("OLLAMA_LOAD_TIMEOUT", "90", "load_timeout", 90.0),
        ("OLLAMA_LOAD_TIMEOUT", "-5m", "load_timeout", None),
        ("OLLAMA_FLASH_ATTENTION", "0", "flash_attention", False),
        ("OLLAMA_FLASH_ATTENTION", "", "flash_attention", None),
        ("OLLAMA_DEBUG", "true", "debug", 1),
        ("OLLAMA_DEBUG", "2", "debug", 2),
        ("OLLAMA_GPU_OVERHEAD", "1.5GiB", "gpu_overhead", 3 * 2**29),
        ("OLLAMA_GPU_OVERHEAD", "1000", "gpu_overhead", 1000),
        ("OLLAMA_KV_CACHE_TYPE", "Q8_0", "cache_type_v", "q8_0"),
        ("OLLAMA_KV_CACHE_TYPE", "q8_0,f16", "cache_type_k", "q8_0"),
        ("PYGGML_KV_CACHE_TYPE_V", "q4_0", "cache_type_v", "q4_0"),
        ("PYGGML_KV_CACHE_TYPE_V", "q4_0", "cache_type_k", "f16"),
        ("OLLAMA_ORIGINS", "http://a, 'https://*.b' ,", "origins", ("http://a", "https://*.b")),
        ("PYGGML_MAX_QUEUE_PER_MODEL", "", "queue_per_model", 512),
    ],
)
def test_settings(variable: str, text: str, field: str, value: object) -> None:
    assert getattr(Config.from_environment({variable: text}), field) == value


def test_keys_are_kept_as_hashes() -> None:
    (key,) = Config.from_environment({"PYGGML_API_KEYS": "abc"}).api_keys
    assert key == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert Config.from_environment({"PYGGML_API_KEYS": f"{key.upper().replace('SHA', 'sha')},x"}).api_keys[0] == key


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("OLLAMA_KEEP_ALIVE", "soon"),
        ("OLLAMA_NUM_PARALLEL", "-1"),
        ("OLLAMA_NUM_PARALLEL", "1.5"),
        ("OLLAMA_SCHED_SPREAD", "maybe"),
        ("OLLAMA_KV_CACHE_TYPE", "q2_k"),
        ("OLLAMA_KV_CACHE_TYPE", "f16,f16,f16"),
        ("OLLAMA_GPU_OVERHEAD", "a lot"),
        ("PYGGML_TLS_KEY", "/no/such/file"),
        ("PYGGML_API_KEYS", "sha256:12"),
    ],
)
def test_bad_settings_name_their_variable(variable: str, text: str) -> None:
    with pytest.raises(ConfigError, match=variable):
        Config.from_environment({variable: text})


def test_a_certificate_needs_its_key(tmp_path: object) -> None:
    with pytest.raises(ConfigError, match="PYGGML_TLS_KEY"):
        Config.from_environment({"PYGGML_TLS_CERTIFICATE": __file__})
