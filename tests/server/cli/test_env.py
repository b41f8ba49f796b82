"""``pyggml env``; the words of ``pyggml ps``."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from pyggml_server.cli.main import main
from pyggml_server.cli.ps import processor, until
from pyggml_server.config import SETTINGS, UNUSED


def env(*arguments: str, **variables: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["env", *arguments], env=dict(variables))
    return result.exit_code, result.output


def test_the_table_shows_values_in_use() -> None:
    status, text = env(OLLAMA_KEEP_ALIVE="90", OLLAMA_FLASH_ATTENTION="", PYGGML_API_KEY="secret")
    assert status == 0
    lines = {line.split()[0]: line.split()[1] for line in text.splitlines()}
    assert set(lines) == {setting.variable for setting in SETTINGS}
    assert lines["OLLAMA_KEEP_ALIVE"] == "1m30s"
    assert lines["OLLAMA_FLASH_ATTENTION"] == "auto"
    assert "secret" not in text


def test_as_json_it_can_be_read_again() -> None:
    values = json.loads(env("--json", OLLAMA_KV_CACHE_TYPE="q8_0,f16", OLLAMA_LOAD_TIMEOUT="0")[1])
    assert values["OLLAMA_KV_CACHE_TYPE"] == "q8_0,f16"
    assert json.loads(env("--json", **values)[1]) == values


def test_bad_values_and_useless_variables_are_told() -> None:
    status, text = env(OLLAMA_MAX_QUEUE="0")
    assert (status, "OLLAMA_MAX_QUEUE='0'" in text) == (1, True)
    assert "OLLAMA_NEW_ENGINE is set and means nothing here: there is one engine" in env(OLLAMA_NEW_ENGINE="1")[1]
    assert [line.split()[0] for line in env("--unused")[1].splitlines()] == list(UNUSED)


@pytest.mark.parametrize(
    ("size", "vram", "text"),
    [(10, 0, "100% CPU"), (10, 10, "100% GPU"), (100, 75, "25%/75% CPU/GPU"),
     (0, 0, "100% CPU")]
)  # fmt: skip
def test_processor(size: int, vram: int, text: str) -> None:
    assert processor({"size": size, "size_vram": vram}) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(299, "4 minutes from now"), (61, "1 minute from now"), (7300, "2 hours from now"), (-1, "Stopping..."),
     (4 * 10**9, "Forever"), (0.5, "Less than a second")],
)  # fmt: skip
def test_until(seconds: float, text: str) -> None:
    now = datetime.now(UTC)
    assert until({"expires_at": (now + timedelta(seconds=seconds)).isoformat()}, now) == text


def test_until_without_a_time() -> None:
    now = datetime.now(UTC)
    assert until({}, now) == "Forever"
    assert until({"state": "loading", "expires_at": now.isoformat()}, now) == "Loading..."
