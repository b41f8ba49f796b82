"""The scheduler's decisions under any order of events: a clock and processes of the test's own, no engine."""

import asyncio
import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pyggml_server.config import Config
from pyggml_server.errors import ModelLoadError, RunnerDiedError, ServerBusyError, ServerError
from pyggml_server.protocol import Loaded, Measured
from pyggml_server.scheduler import KeepAlive, LoadOptions, ModelScheduler, ModelSpec

MEMORY = 100
SIZES = {"small": 20, "middle": 45, "large": 70, "huge": 130}
MOST_MODELS = 3
LOADING = 5.0


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock jumps to the next timer when nothing else is to be done."""

    now = 0.0
    limit = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        timers = [timer.when() for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        if not self._ready and timers:  # type: ignore[attr-defined]
            self.now = max(self.now, min(timers))
        super()._run_once()  # type: ignore[misc]


@dataclass(eq=False)
class Process:
    """Loads a model by waiting."""

    world: "World"
    pid: int
    name: str = ""
    n_ctx: int = 0
    size: int = 0
    alive: bool = True
    stopped: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def load(self, *, on_progress: Any, stall: float | None, path: str, config: Any, **_: Any) -> Loaded:
        self.name = Path(path).name
        if self.name in {p.name for p in self.world.processes if p is not self and p.alive}:
            self.world.violations.append(f"{self.name} is loaded twice")
        if self.world.failing:
            self.world.failing = False
            raise ModelLoadError("bad luck")
        self.size = SIZES[self.name]
        for i in range(5):
            on_progress(i / 4)
            await asyncio.sleep(LOADING / 5)
            self.check()
        self.n_ctx = config["n_ctx"] or 128
        return Loaded(
            0, self.n_ctx, 1024, 2, 1, 1, True, self.size, 0, 1, devices=[self.device()], n_batch=config["n_batch"]
        )  # fmt: skip

    async def ask(self, kind: Any, *, path: str, **_: Any) -> Measured:
        await asyncio.sleep(0.1)
        self.check()
        self.size, size = SIZES[Path(path).name], self.size
        device = self.device()
        self.size = size
        return Measured(0, device["needed"] <= device["free"], [device])

    def device(self) -> dict[str, Any]:
        taken = sum(p.size for p in self.world.processes if p.alive and p is not self)
        return {"name": "CPU", "type": "cpu", "layers": 1, "needed": self.size, "free": MEMORY - taken, "total": MEMORY}

    def check(self) -> None:
        if not self.alive:
            raise RunnerDiedError("killed")

    async def stop(self) -> None:
        self.alive, self.stopped = False, True
        await asyncio.sleep(0.5)
        self.kill()

    def kill(self) -> None:
        self.alive = False
        self.ended.set()


class World:
    """All processes that were started."""

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self.failing = False
        self.violations: list[str] = []
        self._pids = itertools.count(1)

    async def start(self) -> Any:
        await asyncio.sleep(0.2)
        self.processes.append(Process(self, next(self._pids)))
        return self.processes[-1]


@dataclass(eq=False)
class Client:
    """Asks for a model, and has it until it gives it back."""

    spec: ModelSpec
    done: asyncio.Event
    process: Any = None
    task: Any = None
    outcome: str = "waiting"

    async def run(self, scheduler: ModelScheduler, **options: Any) -> None:
        try:
            async with scheduler.lease(self.spec, **options) as runner:
                self.process, self.outcome = runner._process, "has"
                assert runner.n_ctx == (self.spec.options.num_ctx or self.process.n_ctx)
                await self.done.wait()
                self.outcome = "done"
        except ServerBusyError:
            self.outcome = "refused"
        except ServerError:
            self.outcome = "failed"
        except asyncio.CancelledError:
            self.outcome = "cancelled"


def make_spec(name: str, num_ctx: int | None) -> ModelSpec:
    return ModelSpec(name, f"digest of {name}", Path("/models") / name, options=LoadOptions(num_ctx=num_ctx))


class Decisions(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.world = World()
        self.clients: list[Client] = []
        config = Config.from_environment({
            "OLLAMA_MAX_LOADED_MODELS": str(MOST_MODELS), "OLLAMA_MAX_QUEUE": "6", "OLLAMA_CONTEXT_LENGTH": "128",
        })  # fmt: skip
        self.scheduler = ModelScheduler(config, start_runner=self.world.start, clock=self.loop.time)
        self.run(0)

    def run(self, seconds: float) -> None:
        """Let so much time pass."""

        async def wait() -> None:
            await asyncio.sleep(seconds)
            for _ in range(20):
                await asyncio.sleep(0)

        self.loop.run_until_complete(wait())

    def having(self, outcome: str) -> list[Client]:
        return [client for client in self.clients if client.outcome == outcome]

    @rule(
        name=st.sampled_from(list(SIZES)),
        num_ctx=st.sampled_from([None, 64, 128, 256]),
        keep_alive=st.sampled_from([None, 0, 30, -1]),
        priority=st.integers(0, 2),
    )
    def ask(self, name: str, num_ctx: int | None, keep_alive: int | None, priority: int) -> None:
        client = Client(make_spec(name, num_ctx), asyncio.Event())
        keep = None if keep_alive is None else KeepAlive.parse(keep_alive)
        client.task = self.loop.create_task(client.run(self.scheduler, keep_alive=keep, priority=priority))
        self.clients.append(client)
        self.run(0)

    @precondition(lambda self: self.having("has"))
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.having("has"))).done.set()
        self.run(0)

    @precondition(lambda self: self.having("has") or self.having("waiting"))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.having("has") + self.having("waiting"))).task.cancel()
        self.run(0)

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.0, 7.0, 40.0, 400.0]))
    def wait(self, seconds: float) -> None:
        self.run(seconds)

    @precondition(lambda self: any(p.alive for p in self.world.processes))
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from([p for p in self.world.processes if p.alive])).kill()
        self.run(0)

    @rule(name=st.sampled_from(list(SIZES)))
    def unload(self, name: str) -> None:
        self.loop.run_until_complete(self.scheduler.unload(name))

    @rule()
    def next_load_fails(self) -> None:
        self.world.failing = True

    @invariant()
    def nobody_s_model_is_taken_away(self) -> None:
        for client in self.having("has"):
            process = client.process
            assert not process.stopped
            wanted = client.spec.options.num_ctx
            assert wanted is None or process.n_ctx >= wanted

    @invariant()
    def nobody_gets_what_he_did_not_ask_for(self) -> None:
        for client in self.clients:
            if client.task.done() and not client.task.cancelled():
                client.task.result()
        assert not self.world.violations

    @invariant()
    def limits_are_kept(self) -> None:
        models = self.scheduler.loaded()
        assert len(models) <= MOST_MODELS
        assert self.scheduler.queued <= 6
        taken = [p for p in self.world.processes if p.alive and p.size]
        assert sum(p.size for p in taken) <= MEMORY or len(taken) == 1
        assert sum(model.n_active for model in models) <= len(self.having("has"))

    def teardown(self) -> None:
        """When everybody gives back what he has, everybody gets what he waits for; then all can be put away."""
        self.world.failing = False
        for _ in range(60):
            for client in self.having("has"):
                client.done.set()
            self.run(30)
            if not self.having("waiting") and not self.having("has"):
                break
        assert not self.having("waiting"), [client.spec for client in self.having("waiting")]
        self.loop.run_until_complete(self.scheduler.unload_all())
        self.run(1)
        assert self.scheduler.loaded() == []
        assert not any(p.alive for p in self.world.processes)
        self.loop.run_until_complete(self.scheduler.close())
        self.loop.close()


TestDecisions = Decisions.TestCase
TestDecisions.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_eviction_follows_use() -> None:
    """With room for two of three, the one that was used longest ago goes."""
    machine = Decisions()
    for name in ("small", "middle"):
        machine.ask(name, None, -1, 0)
        machine.run(10)
        machine.having("has")[0].done.set()
        machine.run(1)
    machine.ask("small", None, None, 0)
    machine.run(1)
    machine.having("has")[0].done.set()
    machine.ask("large", None, None, 0)
    machine.run(20)
    assert {model.name for model in machine.scheduler.loaded()} == {"small", "large"}
    machine.teardown()


def test_specs_with_other_adapters_are_other_models() -> None:
    spec = make_spec("small", None)
    assert spec.key == replace(spec, name="other", digest="other").key
    assert spec.key != replace(spec, adapters=(Path("lora"),)).key
