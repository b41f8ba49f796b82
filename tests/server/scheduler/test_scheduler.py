"""Models in real processes: loading, sharing, reloading, going."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Any

import pytest

from pyggml_server.config import Config
from pyggml_server.errors import RunnerDiedError, ServerBusyError, ServerError
from pyggml_server.protocol import Done, Text
from pyggml_server.scheduler import KeepAlive, LoadProgress, ModelScheduler, ModelSpec

pytestmark = pytest.mark.model
MakeConfig = Callable[..., Config]
Run = Callable[[Any], Any]

DELAYED = """
import os, sys, time
time.sleep(1)
os.execv(sys.executable, [sys.executable, "-m", "pyggml_server.runner", *sys.argv[1:]])
"""


def with_options(spec: ModelSpec, **options: Any) -> ModelSpec:
    return replace(spec, options=replace(spec.options, **options))


async def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def alive(pid: int | None) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid or 0, 0)
        return True
    return False


class Serving:
    """A scheduler for the length of a block."""

    def __init__(self, config: Config, command: tuple[str, ...] | None = None) -> None:
        self.scheduler = ModelScheduler(config, runner_command=command)

    async def __aenter__(self) -> ModelScheduler:
        await self.scheduler.start()
        return self.scheduler

    async def __aexit__(self, *_: object) -> None:
        pids = [model.pid for model in self.scheduler.loaded()]
        await self.scheduler.close()
        assert self.scheduler.loaded() == []
        assert not any(alive(pid) for pid in pids if pid)


def test_a_model_is_loaded_once_and_shared(make_config: MakeConfig, smollm2: ModelSpec, run: Run) -> None:
    async def use() -> None:
        told: list[LoadProgress] = []
        async with Serving(make_config()) as scheduler:
            async with scheduler.lease(smollm2, on_progress=told.append) as runner:
                assert runner.load_duration_ns > 0
                assert (runner.n_ctx, runner.info.n_parallel, runner.queue_position) == (512, 4, 0)
                pid = scheduler.loaded()[0].pid
                # another name for the same files; a context that is part of the loaded one; none at all
                for spec, n_ctx in (
                    (replace(smollm2, name="other", digest="d" * 64), 512),
                    (with_options(smollm2, num_ctx=64), 64),
                    (with_options(smollm2, num_ctx=None, num_thread=None, num_gpu=-1), 512),
                ):
                    async with scheduler.lease(spec) as second:
                        assert (second.n_ctx, second.load_duration_ns) == (n_ctx, 0)
                assert scheduler.loaded()[0].pid == pid
                assert scheduler.loaded()[0].n_active == 1
                reply = (await scheduler.metrics())["smollm2:135m"]
                assert (reply.running, reply.counters["requests"]) == (0, 0)
            assert told[0].status == "starting"
            assert told[-1] == LoadProgress("ready", 1.0, 0)
            assert LoadProgress("loading", 1.0) in told
            assert not await scheduler.unload(replace(smollm2, adapters=(smollm2.path,)).key)
            assert await scheduler.unload("OTHER")
            assert scheduler.loaded() == []
            assert not alive(pid)
            assert not await scheduler.unload("other")

    run(use())


def test_options_that_need_another_load(make_config: MakeConfig, smollm2: ModelSpec, run: Run) -> None:
    async def use() -> None:
        async with Serving(make_config()) as scheduler:
            async with scheduler.lease(smollm2) as runner:
                first = scheduler.loaded()[0].pid
                stream = runner.generate(tokens=[1, 2, 3], max_tokens=15, ignore_eos=True)
                larger = asyncio.ensure_future(_pid_and_ctx(scheduler, with_options(smollm2, num_ctx=1024)))
                done = [message async for message in stream][-1]
                assert done.eval_tokens == 15  # who has the model keeps it
                assert not larger.done()
            second, n_ctx = await larger
            assert (second != first, n_ctx) == (True, 1024)
            assert not alive(first)
            assert await _pid_and_ctx(scheduler, smollm2) == (second, 512)
            trained = with_options(smollm2, num_ctx=10**6)
            third, n_ctx = await _pid_and_ctx(scheduler, trained)
            assert (third != second, n_ctx) == (True, 8192)  # what the model was trained for
            assert await _pid_and_ctx(scheduler, trained) == (third, 8192)

    run(use())


async def _pid_and_ctx(scheduler: ModelScheduler, spec: ModelSpec) -> tuple[int | None, int]:
    async with scheduler.lease(spec) as runner:
        return scheduler.loaded()[0].pid, runner.n_ctx


def test_keep_alive(make_config: MakeConfig, minilm: ModelSpec, run: Run) -> None:
    async def use() -> None:
        async with Serving(make_config(OLLAMA_KEEP_ALIVE="1h")) as scheduler:
            async with scheduler.lease(minilm):
                pass
            (model,) = scheduler.loaded()
            assert model.keep_alive == KeepAlive(3600)
            assert model.expires_at is not None
            async with scheduler.lease(minilm, keep_alive=KeepAlive.parse(-1)):
                pass
            assert scheduler.loaded()[0].expires_at is None
            async with scheduler.lease(minilm, keep_alive=KeepAlive(0.3)):
                await asyncio.sleep(0.5)
                assert scheduler.loaded()[0].state == "ready"  # the clock starts when it is given back
            assert scheduler.loaded()[0].state == "ready"
            await until(lambda: not scheduler.loaded(), 10)
            async with scheduler.lease(minilm, keep_alive=KeepAlive(0)):
                pass
            await until(lambda: not scheduler.loaded(), 10)

    run(use())


def test_who_goes_when_there_may_be_one_model_only(
    make_config: MakeConfig, minilm: ModelSpec, smollm2: ModelSpec, run: Run
) -> None:
    async def use() -> None:
        async with Serving(make_config(OLLAMA_MAX_LOADED_MODELS="1")) as scheduler:
            async with scheduler.lease(minilm) as runner:
                waiting = asyncio.ensure_future(_pid_and_ctx(scheduler, smollm2))
                await asyncio.sleep(0.3)
                assert [model.name for model in scheduler.loaded()] == ["all-minilm:latest"]
                assert (await runner.embed([[101, 102]])).rows == 1
                assert scheduler.queued == 1
            await waiting
            assert [model.name for model in scheduler.loaded()] == ["smollm2:135m"]

    run(use())


def test_a_slow_load_holds_up_nobody_else(
    make_config: MakeConfig, minilm: ModelSpec, smollm2: ModelSpec, script: Any, run: Run
) -> None:
    async def use() -> None:
        async with Serving(make_config(), script(DELAYED)) as scheduler:
            await _pid_and_ctx(scheduler, minilm)
            slow = asyncio.ensure_future(_pid_and_ctx(scheduler, smollm2))
            await asyncio.sleep(0.1)
            assert scheduler.loaded()[-1].state == "loading" or scheduler.loaded()[0].state == "loading"
            async with asyncio.timeout(0.9):
                async with scheduler.lease(minilm) as runner:
                    assert (await runner.embed([[101, 102]])).rows == 1
            assert not slow.done()
            await slow

    run(use())


def test_a_load_outlives_who_asked_first_while_somebody_waits(
    make_config: MakeConfig, minilm: ModelSpec, script: Any, run: Run
) -> None:
    async def use() -> None:
        async with Serving(make_config(), script(DELAYED)) as scheduler:
            first = asyncio.ensure_future(_pid_and_ctx(scheduler, minilm))
            await asyncio.sleep(0.1)
            second = asyncio.ensure_future(_pid_and_ctx(scheduler, minilm))
            await until(lambda: scheduler.loaded()[0].pid)
            pid = scheduler.loaded()[0].pid
            first.cancel()
            assert (await second)[0] == pid
            await scheduler.unload_all()

            alone = asyncio.ensure_future(_pid_and_ctx(scheduler, minilm))
            await until(lambda: scheduler.loaded())
            await asyncio.sleep(0.3)
            alone.cancel()
            await until(lambda: not scheduler.loaded(), 10)

    run(use())


def test_the_queue_is_bounded(make_config: MakeConfig, minilm: ModelSpec, script: Any, run: Run) -> None:
    async def use() -> None:
        text = "^server busy, please try again.  maximum pending requests exceeded$"
        async with Serving(make_config(OLLAMA_MAX_QUEUE="3"), script(DELAYED)) as scheduler:
            waiting = [asyncio.ensure_future(_pid_and_ctx(scheduler, minilm)) for _ in range(3)]
            await asyncio.sleep(0.05)
            with pytest.raises(ServerBusyError, match=text):
                async with scheduler.lease(minilm):
                    pass
            await asyncio.gather(*waiting)
            async with AsyncExitStack() as stack:  # one has its turn, three wait for theirs
                runners = [await stack.enter_async_context(scheduler.lease(minilm)) for _ in range(4)]
                assert [runner.queue_position for runner in runners] == [0, 1, 2, 3]
                assert (scheduler.n_waiting, scheduler.queued) == (3, 0)
                with pytest.raises(ServerBusyError, match=text):
                    await stack.enter_async_context(scheduler.lease(minilm))
            async with scheduler.lease(minilm):
                pass

    run(use())


def test_one_model_s_queue_leaves_room_for_others(
    make_config: MakeConfig, minilm: ModelSpec, smollm2: ModelSpec, run: Run
) -> None:
    async def use() -> None:
        config = make_config(PYGGML_MAX_QUEUE_PER_MODEL="1")
        async with Serving(config) as scheduler, scheduler.lease(minilm), scheduler.lease(minilm):
            with pytest.raises(ServerBusyError):
                async with scheduler.lease(minilm):
                    pass
            async with scheduler.lease(smollm2):
                pass

    run(use())


def test_priority_decides_who_is_served_first(
    make_config: MakeConfig, minilm: ModelSpec, smollm2: ModelSpec, run: Run
) -> None:
    async def use() -> None:
        order: list[str] = []

        async def ask(name: str, spec: ModelSpec, priority: int) -> None:
            async with scheduler.lease(spec, priority=priority):
                order.append(name)

        async with Serving(make_config(OLLAMA_MAX_LOADED_MODELS="1")) as scheduler:
            async with scheduler.lease(minilm):
                tasks = [asyncio.ensure_future(ask("low", smollm2, 0))]
                await asyncio.sleep(0.05)
                tasks.append(asyncio.ensure_future(ask("high", with_options(minilm, num_batch=64), 5)))
                await asyncio.sleep(0.05)
            await asyncio.gather(*tasks)
        assert order == ["high", "low"]

    run(use())


def test_a_killed_runner_ends_its_streams_only(
    make_config: MakeConfig, minilm: ModelSpec, smollm2: ModelSpec, run: Run
) -> None:
    async def stream(scheduler: ModelScheduler, i: int, begun: set[int]) -> Exception | None:
        try:
            async with scheduler.lease(smollm2) as runner:
                async for message in runner.generate(tokens=[1, 2, i], max_tokens=5000, ignore_eos=True, shift=True):
                    begun.add(i)
                    assert isinstance(message, Text)
        except ServerError as error:
            return error
        return None

    async def use() -> None:
        begun: set[int] = set()
        async with Serving(make_config()) as scheduler, scheduler.lease(minilm) as other:
            streams = [asyncio.ensure_future(stream(scheduler, i, begun)) for i in range(20)]
            await until(lambda: len(begun) == 4)
            (model,) = [model for model in scheduler.loaded() if model.name == smollm2.name]
            assert (model.n_active, model.queued, model.n_parallel) == (20, 16, 4)
            assert model.pid is not None
            os.kill(model.pid, signal.SIGKILL)
            errors = await asyncio.gather(*streams)
            assert all(isinstance(error, RunnerDiedError) and "SIGKILL" in str(error) for error in errors)
            assert all("as the system does when memory is short" in str(error) for error in errors)
            assert (await other.embed([[101, 102]])).rows == 1
            async with scheduler.lease(smollm2) as again:
                assert again.load_duration_ns > 0
                messages = [m async for m in again.generate(tokens=[1, 2], max_tokens=2, ignore_eos=True)]
                assert isinstance(messages[-1], Done)

    run(use())


def test_closing_refuses_who_waits_and_ends_who_runs(
    make_config: MakeConfig, smollm2: ModelSpec, minilm: ModelSpec, script: Any, run: Run
) -> None:
    async def use() -> None:
        scheduler = ModelScheduler(make_config(OLLAMA_MAX_LOADED_MODELS="1"))
        async with AsyncExitStack() as stack:
            runner = await stack.enter_async_context(scheduler.lease(smollm2))
            waiting = asyncio.ensure_future(_pid_and_ctx(scheduler, minilm))
            stream = runner.generate(tokens=[1, 2], max_tokens=5000, ignore_eos=True, shift=True)
            await anext(stream)
            await scheduler.close()
            with pytest.raises(ServerBusyError, match="the answer is not complete"):
                async for _ in stream:
                    pass
            with pytest.raises(ServerError, match="shutting down"):
                await waiting
        with pytest.raises(ServerError, match="shutting down"):
            async with scheduler.lease(smollm2):
                pass

    run(use())


@pytest.mark.parametrize(
    ("types", "n_bytes"),
    [("f16", 2 + 2), ("q8_0", 2 * 34 / 32), ("q8_0,f16", 34 / 32 + 2), ("f32,q4_0", 4 + 18 / 32)],
)
def test_types_of_the_cache_act(
    make_config: MakeConfig, smollm2: ModelSpec, run: Run, types: str, n_bytes: float
) -> None:
    """30 layers, 3 heads of keys and values, 64 numbers each; 512 positions for two."""

    async def sizes(types: str) -> int:
        config = make_config(OLLAMA_KV_CACHE_TYPE=types, OLLAMA_NUM_PARALLEL="2")
        async with Serving(config) as scheduler, scheduler.lease(smollm2) as runner:
            return runner.info.size

    found = run(sizes(types)) - run(sizes("f32"))
    assert found == pytest.approx(30 * 3 * 64 * 512 * 2 * (n_bytes - 8), rel=0.06)  # and a little for computing


def test_unloading_waits_for_answers_under_way(make_config: MakeConfig, minilm: ModelSpec, run: Run) -> None:
    async def use() -> None:
        async with Serving(make_config()) as scheduler:
            async with scheduler.lease(minilm) as runner:
                assert await scheduler.unload(minilm.digest)
                assert scheduler.loaded()[0].state == "stopping"
                assert (await runner.embed([[101, 102]])).rows == 1
            await until(lambda: not scheduler.loaded(), 10)

    run(use())
