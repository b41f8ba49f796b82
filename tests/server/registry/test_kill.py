"""kill -9 in the middle of a pull and of a delete: nothing half is ever a model, and the next try finishes."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from pyggml_server.errors import StoreError
from pyggml_server.names import Name

PULL = """
import asyncio, sys
from pyggml_server.config import Config
from pyggml_server.registry import RegistrySettings
from pyggml_server.store import Store, Transfers
async def main():
    settings = RegistrySettings(smallest_part=1000, largest_part=4000, backoff=0.01)
    config = Config.from_environment({"OLLAMA_MODELS": sys.argv[1]})
    async for event in Transfers(config, Store(sys.argv[1]), settings=settings).pull(sys.argv[2]):
        print(event["status"], event.get("completed", 0), flush=True)
asyncio.run(main())
"""
REMOVE = """
import sys
from pathlib import Path
from pyggml_server.names import Name
from pyggml_server.store import Store
original = Path.unlink
def unlink(self, *args, **kwargs):
    original(self, *args, **kwargs)
    print("gone", flush=True)
    sys.stdin.readline()
Path.unlink = unlink
Store(sys.argv[1]).remove(Name.parse(sys.argv[2]))
"""


def _kill_when(command, condition, *, stdin=None):
    with subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if condition(line):
                break
        process.kill()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_pull(pull, registry, store, weights, share):
    registry.add_model("me/x", "latest", weights, system=b"s")
    registry.faults.slow = 0.02
    command = [sys.executable, "-c", PULL, str(store.folder), f"{registry.url}/me/x"]
    _kill_when(command, lambda line: int(line.split()[-1]) > share * len(weights) - 1)
    for entry in store.list():
        store.blobs.verify(store.get(entry.name).weights.digest)
    for path in store.blobs.folder.glob("sha256-*"):
        store.blobs.verify(path.name)
    registry.faults.slow = 0.0
    pull()
    model = store.get(Name.parse(f"{registry.host}/me/x"))
    assert model.path.read_bytes() == weights and model.system == "s"


@pytest.mark.parametrize("n_gone", [1, 2])
def test_remove(registry, pull, store, weights, n_gone):
    registry.add_model("me/x", "latest", weights, system=b"s")
    pull()
    name = f"{registry.url}/me/x"
    command = [sys.executable, "-c", REMOVE, str(store.folder), name]
    count = iter(range(1, 100))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for _ in process.stdout or ():
            if next(count) == n_gone:
                break
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        os.kill(process.pid, signal.SIGKILL)
    assert store.list() == []  # the name goes first: what stays are blobs without a name
    with pytest.raises((StoreError, LookupError)):
        store.get(Name.parse(name))
    past = time.time() - 7200
    for path in store.blobs.folder.iterdir():
        os.utime(path, (past, past))
    store.prune()
    assert not list(store.blobs.folder.glob("sha256-*"))
    pull()
    assert store.get(Name.parse(name)).path.read_bytes() == weights


def test_two_processes_pull_the_same(pull, registry, store, weights):
    registry.add_model("me/x", "latest", weights)
    registry.faults.slow = 0.02
    command = [sys.executable, "-c", PULL, str(store.folder), f"{registry.url}/me/x"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        drain = threading.Thread(target=process.stdout.read)
        drain.start()
        pull()
        drain.join()
        assert process.wait() == 0
    model = store.get(Name.parse(f"{registry.host}/me/x"))
    store.blobs.verify(model.weights.digest)
