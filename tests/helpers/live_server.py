"""A real server on a real port, with a store of its own that shares the test models' files."""

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from pyggml_server.api import create_app
from pyggml_server.config import Config
from pyggml_server.names import Name
from pyggml_server.scheduler import ModelScheduler
from pyggml_server.store import Store, Transfers

MODELS = Path(os.environ.get("PYGGML_TEST_MODELS") or "~/.cache/pyggml-tests").expanduser()


@dataclass(frozen=True)
class LiveServer:
    """Where it listens, and its parts."""

    url: str
    config: Config
    store: Store
    scheduler: ModelScheduler
    loop: asyncio.AbstractEventLoop


def borrow_models(folder: Path, names: tuple[str, ...]) -> None:
    """Fill a store with models of the test cache; their blobs are linked, so nothing is copied."""
    source, target = Store(MODELS), Store(folder)
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    for text in names:
        name = Name.parse(text)
        manifest = source.manifests.read(name)
        for digest in manifest.digests:
            blob = target.blobs.path(digest)
            if not blob.exists():
                blob.symlink_to(source.blobs.path(digest))
        path = target.manifests.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.manifests.path(name).read_bytes())


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running_server(
    folder: Path, *, models: tuple[str, ...] = (), environment: Mapping[str, str] | None = None
) -> Iterator[LiveServer]:
    """Serve the models of ``folder`` until the block ends."""
    borrow_models(folder, models)
    port = free_port()
    settings = {"OLLAMA_MODELS": str(folder), "OLLAMA_HOST": f"127.0.0.1:{port}", "OLLAMA_NUM_PARALLEL": "2"}
    config = Config.from_environment({**settings, **(environment or {})})
    store, scheduler = Store(folder), ModelScheduler(config)
    app = create_app(config, store, scheduler, Transfers(config, store))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", lifespan="on"))
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="server")
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the server did not start: see its log")
            time.sleep(0.02)
        yield LiveServer(f"http://127.0.0.1:{port}", config, store, scheduler, loops[0])
    finally:
        server.should_exit = True
        thread.join(60)
