"""Loading one model beside others: the process, the memory, the waiting for both."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from pyggml_server.config import Config
from pyggml_server.errors import ModelLoadError, ModelMemoryError, RequestRefusedError, RunnerDiedError
from pyggml_server.protocol import Loaded, Measure, Measured
from pyggml_server.scheduler.entry import Entry
from pyggml_server.scheduler.loading import load_fields
from pyggml_server.scheduler.policy import check_room, choose_victim
from pyggml_server.scheduler.process import RunnerProcess
from pyggml_server.scheduler.spec import LoadProgress, ModelKey

__all__ = ["Loader"]

_log: Final = logging.getLogger(__name__)

_RECOVERY: Final = 5.0
_RECOVERY_POLL: Final = 0.25


class Loader:
    """Brings models into memory.

    Args:
        config: The settings.
        start: Starts a runner.
        entries: All models, a view that changes.
        evict: Begins to put one away.
        clock: Seconds.
    """

    def __init__(
        self,
        config: Config,
        start: Callable[[], Awaitable[RunnerProcess]],
        *,
        entries: Mapping[ModelKey, Entry],
        evict: Callable[[Entry], None],
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._start = start
        self._clock = clock
        self._entries = entries
        self._evict = evict
        self._changed: asyncio.Future[None] | None = None
        self._n_changes = 0
        self._queue: list[Entry] = []
        self.n_gpus = 0
        """GPUs that a runner has reported."""

    def notify(self) -> None:
        """A model has gone or has become idle: those who wait for memory look again."""
        self._n_changes += 1
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    async def _wait_for_change(self) -> None:
        if self._changed is None or self._changed.done():
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)

    async def load(self, entry: Entry, *, tell: Callable[[], None]) -> None:
        """Start a runner, make room, load.

        Args:
            entry: gets its ``process``, ``loaded`` and what it takes; ``progress`` changes on the way.
            tell: called after each change of ``progress``.

        Raises:
            ModelLoadError: it cannot be loaded, or the runner ended. ModelMemoryError: there is no room for it.
        """

        def report(status: str, fraction: float = 0.0) -> None:
            entry.progress = LoadProgress(status, fraction)
            tell()

        began = self._clock()
        process: RunnerProcess | None = None
        try:
            report("starting")
            process = await self._start()
            entry.process = process
            fields = load_fields(entry.spec, self._config)
            await self._make_room(entry, process, fields, report)
            report("loading")
            loaded = await self._load_or_evict(entry, process, fields, lambda fraction: report("loading", fraction))
        except BaseException as error:
            if process is not None:
                process.kill()
                await asyncio.shield(process.ended.wait())
            if isinstance(error, RunnerDiedError):
                raise ModelLoadError(f"llama runner process has terminated: {error}") from error
            if isinstance(error, RequestRefusedError):  # the measurement found what loading would have
                raise ModelLoadError(str(error)) from error
            raise
        entry.loaded = loaded
        entry.seat.reserved = {device["name"]: device["needed"] for device in loaded.devices}
        self.n_gpus = max(self.n_gpus, sum(device["type"] != "cpu" for device in loaded.devices))
        notes = f" ({', '.join(loaded.notes)})" if loaded.notes else ""
        _log.info("%s: loaded in %.2f s, context %d × %d%s", entry.spec.name, self._clock() - began, loaded.n_ctx,
                  loaded.n_parallel, notes)  # fmt: skip

    async def _load_or_evict(
        self, entry: Entry, process: RunnerProcess, fields: dict[str, Any], on_progress: Callable[[float], None]
    ) -> Loaded:
        """Load; when memory is short in spite of the measurement, once more with every idle model gone."""
        stall = self._config.load_timeout
        try:
            return await process.load(on_progress=on_progress, stall=stall, **fields)
        except ModelMemoryError as error:
            idle = [other for other in self._entries.values() if other.seat.idle]
            if not idle:
                raise
            _log.warning("%s: %s; idle models are put away", entry.spec.name, error)
            for other in idle:
                self._evict(other)
            await asyncio.wait([other.stop_task for other in idle if other.stop_task is not None])
            return await process.load(on_progress=on_progress, stall=stall, **fields)

    # -- memory -------------------------------------------------------------------------------------------------

    async def _make_room(
        self, entry: Entry, process: RunnerProcess, fields: dict[str, Any], report: Callable[[str], None]
    ) -> None:
        """Measure what the model takes, and put others away until that is there.

        Who is alone is loaded without a measurement: nothing could be done for it. Those who wait are served in their
        order, so that small models do not keep a large one out for ever.
        """
        self._queue.append(entry)
        recovery = 0.0
        try:
            while True:
                if self._queue[0] is not entry:
                    await self._wait_for_change()
                    continue
                if not self._others():
                    return
                seen = self._n_changes
                found = await self._measure(process, fields)
                room = check_room(
                    found.devices,
                    [other.seat for other in self._others()],
                    margin=fields["config"]["memory_margin"],
                    partial=fields["config"].get("n_gpu_layers", -1) >= 0,
                )
                if room.fits:
                    entry.seat.reserved = {device["name"]: device["needed"] for device in found.devices}
                    return
                if seen != self._n_changes:
                    continue  # what was measured may be out of date, and nobody would wake us again
                if room.accounted and self._clock() < recovery:
                    await asyncio.sleep(_RECOVERY_POLL)  # a driver takes its time to give back what was freed
                    continue
                report("waiting for memory")
                if await self._evict_one(entry, room.lacking):
                    recovery = self._clock() + _RECOVERY
        finally:
            entry.admitted = True  # or it fails, and is forgotten
            self._queue.remove(entry)
            self.notify()

    async def _measure(self, process: RunnerProcess, fields: dict[str, Any]) -> Measured:
        """What a model takes now; it counts as loading, so it must not stand still either."""
        try:
            async with asyncio.timeout(self._config.load_timeout):
                found: Measured = await process.ask(Measure, **fields)
                return found
        except TimeoutError:
            raise ModelLoadError("timed out waiting for llama runner to start - measuring the model") from None

    def _others(self) -> list[Entry]:
        """Who is in memory, or was let in."""
        return [other for other in self._entries.values() if other.admitted]

    async def _evict_one(self, entry: Entry, lacking: Mapping[str, int]) -> bool:
        """Put one model away and wait until it has gone; False: none is idle, and something else has changed."""
        others = self._others()
        leaving = [other for other in others if other.stop_task is not None]
        if not leaving:
            seat = choose_victim(other.seat for other in others)
            victim = next((other for other in others if other.seat is seat), None)
            if victim is None:
                await self._wait_for_change()
                return False
            _log.info("%s: put away to make room for %s, which lacks %s", victim.spec.name, entry.spec.name, lacking)
            self._evict(victim)
            leaving = [victim]
        await asyncio.wait([other.stop_task for other in leaving if other.stop_task is not None])
        return True
