"""How a runner ends, and what is heard of it."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pyggml_server.errors import ModelLoadError, RunnerDiedError
from pyggml_server.protocol import Generate
from pyggml_server.scheduler.process import RunnerProcess

pytestmark = pytest.mark.model
CONFIG = {"n_ctx": 512, "n_parallel": 1, "n_threads": 1}

ABORTING = """
from pyggml._ffi import ffi, lib
from pyggml.engine import Engine
from pyggml_server.runner.__main__ import main

def step(self):
    memory = ffi.new("struct ggml_init_params *", {"mem_size": 4096, "no_alloc": True})
    lib.ggml_new_tensor_1d(lib.ggml_init(memory[0]), 9999, 1)

Engine.step = step
main()
"""

SERVICE = """
import asyncio, sys, time
from pyggml_server.scheduler.process import RunnerProcess

async def main():
    process = await RunnerProcess.start()
    if len(sys.argv) > 1:
        await process.load(on_progress=lambda _: None, stall=60, path=sys.argv[1], config={"n_ctx": 64, "n_threads": 1})
    print(process.pid, flush=True)
    await asyncio.sleep(100)

asyncio.run(main())
"""


def run(coroutine: Any) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(100):
            return await coroutine

    return asyncio.run(limited())


async def load(process: RunnerProcess, path: Path, **config: Any) -> None:
    await process.load(on_progress=lambda _: None, stall=60, path=str(path), config=CONFIG | config)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


def test_an_abort_in_ggml_is_told(started: Any, script: Any, smollm2_path: Path) -> None:
    async def die() -> RunnerDiedError:
        async with started(*script(ABORTING)) as process:
            await load(process, smollm2_path)
            with pytest.raises(RunnerDiedError) as caught:
                async for _ in process.stream(Generate, tokens=[1, 2]):
                    pass
            with pytest.raises(RunnerDiedError, match="SIGABRT"):
                await process.ping()
            return caught.value

    error = run(die())
    assert "SIGABRT" in str(error)
    assert "ggml stopped the process" in str(error)
    assert "GGML_ASSERT" in error.last_words
    assert "in step" in error.last_words  # the Python stack


FAILING = """
from pyggml.engine import Engine
from pyggml_server.runner.__main__ import main

def step(self):
    raise MemoryError("no memory left for anything")

Engine.step = step
main()
"""


def test_an_engine_that_fails_ends_its_process(started: Any, script: Any, smollm2_path: Path) -> None:
    async def die() -> RunnerDiedError:
        async with started(*script(FAILING)) as process:
            await load(process, smollm2_path)
            with pytest.raises(RunnerDiedError, match=r"status 1.*no memory left for anything") as caught:
                async for _ in process.stream(Generate, tokens=[1, 2]):
                    pass
            return caught.value

    assert "in step" in run(die()).last_words


def test_the_system_ends_a_runner_before_its_service(started: Any) -> None:
    async def look() -> int:
        async with started() as process:
            return int(Path(f"/proc/{process.pid}/oom_score_adj").read_text())

    assert run(look()) > int(Path("/proc/self/oom_score_adj").read_text())


def test_a_process_that_ends_at_once_is_told(script: Any) -> None:
    async def start() -> None:
        with pytest.raises(RunnerDiedError, match=r"status 3.*no such thing") as caught:
            await RunnerProcess.start(script("import sys; print('Error: no such thing', file=sys.stderr); sys.exit(3)"))
        assert caught.value.last_words.endswith("no such thing")
        with pytest.raises(ModelLoadError, match="cannot be started"):
            await RunnerProcess.start(("/no/such/program",))

    run(start())


def test_sigterm_saves_and_ends(started: Any, smollm2_path: Path, tmp_path: Path) -> None:
    async def end() -> RunnerDiedError | None:
        async with started() as process:
            await load(process, smollm2_path, snapshot_dir=str(tmp_path / "prompts"), snapshot_min_tokens=16)
            async for _ in process.stream(Generate, tokens=list(range(100, 140)), max_tokens=2):
                pass
            os.kill(process.pid, signal.SIGTERM)
            async with asyncio.timeout(20):
                await process.ended.wait()
            error: RunnerDiedError | None = process.error
            return error

    error = run(end())
    assert "status 0" in str(error)
    assert [path for path in (tmp_path / "prompts").rglob("*") if path.is_file() and path.stat().st_size > 1000]


def test_ctrl_c_at_the_terminal_is_the_service_s_business(started: Any) -> None:
    async def interrupt() -> str:
        async with started() as process:
            os.kill(process.pid, signal.SIGINT)
            state: str = (await process.ping()).state
            return state

    assert run(interrupt()) == "empty"


@pytest.mark.parametrize("loaded", [False, True])
def test_no_runner_survives_its_service(loaded: bool, smollm2_path: Path) -> None:
    service = subprocess.Popen(
        [sys.executable, "-c", SERVICE, *([str(smollm2_path)] if loaded else [])], stdout=subprocess.PIPE, text=True
    )
    with service:
        assert service.stdout is not None
        pid = int(service.stdout.readline())
        assert alive(pid)
        service.kill()
    assert wait_until_gone(pid, 5)


def test_the_socket_is_private_and_leaves_nothing_behind(
    started: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def sockets(pid: int) -> set[str]:
        found = set()
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # that of the listing itself
                found.add(str(link.readlink()))
        return {link for link in found if link.startswith("socket:")}

    async def look() -> None:
        before = sockets(os.getpid())
        async with started() as one, started() as two:  # a service that is killed now could not tidy up
            assert not list(tmp_path.iterdir())
            assert not sockets(one.pid) & sockets(two.pid)
            assert not sockets(os.getpid()) & (sockets(one.pid) | sockets(two.pid))
        await asyncio.sleep(0.1)
        assert sockets(os.getpid()) <= before

    run(look())
