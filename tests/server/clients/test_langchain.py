"""langchain-ollama passes langchain's own integration tests against our server."""

import os
import subprocess
from pathlib import Path

import pytest

from helpers.live_server import LiveServer

pytestmark = [pytest.mark.model, pytest.mark.slow]

SUITE = Path(__file__).with_name("langchain_suite.py")


@pytest.mark.timeout(1800)
def test_langchain(live: LiveServer, clients_python: Path, tmp_path: Path) -> None:
    command = [clients_python, "-m", "pytest", "-q", "-rxXfs", "-o", "asyncio_mode=auto", "-o", "xfail_strict=true"]
    command += ["-p", "no:cacheprovider", "--noconftest", "--rootdir", tmp_path, "-c", os.devnull, SUITE]
    done = subprocess.run(
        command, env=os.environ | {"PYGGML_URL": live.url}, capture_output=True, text=True, cwd=tmp_path
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
