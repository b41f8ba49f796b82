"""``pyggml serve`` in a process of its own, as users start it."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx2

TEST_MODELS = Path(os.environ.get("PYGGML_TEST_MODELS") or "~/.cache/pyggml-tests").expanduser()
PYGGML = (sys.executable, "-m", "pyggml_server.cli.main")


class Server:
    """A server on a free port."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.environment = os.environ | {
            "OLLAMA_MODELS": str(TEST_MODELS), "OLLAMA_HOST": "127.0.0.1:0", "OLLAMA_NOPRUNE": "1", **variables,
        }  # fmt: skip
        self.log = folder / "serve.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen([*PYGGML, "serve"], env=self.environment, stderr=log)
        self.url = self._wait(r"listening on (http\S+)")
        self.environment["OLLAMA_HOST"] = self.url
        self.client = httpx2.Client(base_url=self.url, timeout=100)

    def _wait(self, pattern: str) -> str:
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            if found := re.search(pattern, self.log.read_text()):
                return found[1]
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*PYGGML, *arguments], env=self.environment, capture_output=True, text=True, timeout=100)

    def runners(self) -> list[int]:
        """Process ids of the server's runners."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()] if children.exists() else []

    def close(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()


def gone(pids: list[int], seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(Path(f"/proc/{pid}/cmdline").exists() and _running(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
