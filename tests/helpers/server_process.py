"""``pyggml serve`` as a process of its own."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers.live_server import borrow_models


@dataclass(frozen=True)
class ServerProcess:
    """Where it listens, and its processes."""

    port: int
    pid: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def runners(self) -> list[int]:
        """Process ids of the runners."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]


def private_memory(pid: int) -> int:
    """Resident bytes of a process that are its own: weights that are mapped from their file do not count."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"RssAnon:\s+(\d+) kB", status)[0]) * 1024


@contextlib.contextmanager
def server_process(folder: Path, *, models: tuple[str, ...], **variables: str) -> Iterator[ServerProcess]:
    """Serve models of the test cache until the block ends; ends with an error if the server did not end well."""
    borrow_models(folder, models)
    log = folder / "serve.log"
    environment = os.environ | {"OLLAMA_MODELS": str(folder), "OLLAMA_HOST": "127.0.0.1:0", **variables}
    with log.open("w") as output:
        command = [sys.executable, "-m", "pyggml_server.cli.main", "serve"]
        process = subprocess.Popen(command, env=environment, stderr=output)
    try:
        yield ServerProcess(_port(process, log), process.pid, log)
        process.terminate()
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", log.read_text()):
            return int(found[1])
        time.sleep(0.05)
    raise AssertionError(f"the server did not start: {log.read_text()}")
