"""What can go wrong with a load, and what is left of it."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pyggml_server.config import Config
from pyggml_server.errors import ModelLoadError, ModelMemoryError
from pyggml_server.scheduler import ModelScheduler, ModelSpec
from pyggml_server.scheduler.process import RUNNER_COMMAND

pytestmark = pytest.mark.model

TEASING = """
# Says hello, and of a model only that it is on its way: so often, then never more.
import socket, sys, time
from pyggml_server.protocol import VERSION, FrameReader, Hello, Load, Loading, ToRunner, pack

link = socket.socket(fileno=int(sys.argv[sys.argv.index("--socket") + 1]))
link.sendall(pack([Hello(VERSION, 0)]))
reader = FrameReader(ToRunner)
while data := link.recv(4096):
    for message in reader.feed(data):
        if isinstance(message, Load):
            for i in range(4):
                time.sleep(0.4)
                link.sendall(pack([Loading(message.id, (i + 1) / 8)]))
"""


async def load(scheduler: ModelScheduler, spec: ModelSpec) -> Any:
    async with scheduler.lease(spec) as runner:
        return runner.info


def test_a_load_that_stands_still(
    make_config: Callable[..., Config], smollm2: ModelSpec, script: Any, run: Callable[[Any], Any]
) -> None:
    async def use() -> float:
        scheduler = ModelScheduler(make_config(OLLAMA_LOAD_TIMEOUT="1s"), runner_command=script(TEASING))
        began = time.monotonic()
        with pytest.raises(ModelLoadError, match=r"timed out waiting for llama runner to start - progress 0\.50"):
            await load(scheduler, smollm2)
        assert scheduler.loaded() == []
        await scheduler.close()
        return time.monotonic() - began

    assert run(use()) >= 2.6  # progress armed it again


LOADING = """
# Loads anything at once, and never answers how much it would take.
import socket, sys
from pyggml_server.protocol import VERSION, FrameReader, Hello, Load, Loaded, ToRunner, pack

link = socket.socket(fileno=int(sys.argv[sys.argv.index("--socket") + 1]))
link.sendall(pack([Hello(VERSION, 0)]))
reader = FrameReader(ToRunner)
while data := link.recv(4096):
    for message in reader.feed(data):
        if isinstance(message, Load):
            sizes = {"n_vocab": 1, "n_embd": 1, "size": 1, "size_vram": 0, "load_ns": 1}
            link.sendall(pack([Loaded(message.id, n_ctx=512, n_ctx_train=512, n_parallel=1, flash_attn=True, **sizes)]))
"""


def test_a_measurement_that_stands_still(
    make_config: Callable[..., Config], smollm2: ModelSpec, script: Any, run: Callable[[Any], Any]
) -> None:
    """Who is alone is loaded without one; the second is measured beside the first."""

    async def use() -> None:
        scheduler = ModelScheduler(make_config(OLLAMA_LOAD_TIMEOUT="1s"), runner_command=script(LOADING))
        await load(scheduler, smollm2)
        with pytest.raises(ModelLoadError, match="timed out waiting for llama runner to start - measuring"):
            await load(scheduler, replace(smollm2, name="another", adapters=(smollm2.path,)))
        assert [model.name for model in scheduler.loaded()] == [smollm2.name]
        await scheduler.close()

    run(use())


def test_a_damaged_model_fails_everybody_who_wants_it_and_nobody_else(
    make_config: Callable[..., Config], smollm2: ModelSpec, tmp_path: Path, run: Callable[[Any], Any]
) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(smollm2.path.read_bytes()[:100_000])

    async def use() -> None:
        scheduler = ModelScheduler(make_config())
        damaged = replace(smollm2, path=path)
        found = await asyncio.gather(
            *(load(scheduler, damaged) for _ in range(3)), load(scheduler, smollm2), return_exceptions=True
        )
        assert all(isinstance(each, ModelLoadError) and "damaged.gguf" in str(each) for each in found[:3])
        assert found[3].n_ctx == 512
        with pytest.raises(ModelLoadError, match=r"damaged\.gguf"):
            await load(scheduler, damaged)
        assert [model.name for model in scheduler.loaded()] == [smollm2.name]
        await scheduler.close()

    run(use())


def test_a_runner_that_cannot_start(
    make_config: Callable[..., Config], smollm2: ModelSpec, script: Any, run: Callable[[Any], Any]
) -> None:
    async def use() -> None:
        scheduler = ModelScheduler(make_config(), runner_command=script("raise RuntimeError('no luck today')"))
        with pytest.raises(ModelLoadError, match=r"llama runner process has terminated: .*no luck today"):
            await load(scheduler, smollm2)
        await scheduler.close()

    run(use())


@pytest.mark.parametrize(("gib", "expected"), [(1.0, 2), (0.55, 0)])
def test_memory_that_runs_out(
    make_config: Callable[..., Config],
    smollm2: ModelSpec,
    gib: float,
    expected: int,
    run: Callable[[Any], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # its threads' stacks count as address space
    command = ("prlimit", f"--as={int(gib * 10**9)}", *RUNNER_COMMAND)
    spec = replace(smollm2, options=replace(smollm2.options, num_ctx=8192))

    async def use(parallel: str) -> Any:
        scheduler = ModelScheduler(make_config(OLLAMA_NUM_PARALLEL=parallel), runner_command=command)
        try:
            return await load(scheduler, spec)
        finally:
            await scheduler.close()

    if expected:
        info = run(use("0"))
        assert info.n_parallel == expected
        assert info.notes == [f"n_parallel lowered to {expected}"]
    with pytest.raises(ModelMemoryError, match=r"needs .* MiB .*n_ctx, n_parallel"):
        run(use("4"))  # what was asked for in so many words is not lowered
