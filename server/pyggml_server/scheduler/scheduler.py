"""Which models are in memory, and who gets them.

Every event (a request comes, one ends, a load ends, a timer rings) runs :meth:`ModelScheduler._pump`, which looks at
the waiting requests in their order and does for each what can be done now. Nothing in it waits: a slow load holds up
only those who want that model.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import monotonic, monotonic_ns
from typing import Final

from pyggml_server.config import Config, KeepAlive
from pyggml_server.errors import ServerBusyError, ServerError
from pyggml_server.protocol import Metrics, MetricsReply
from pyggml_server.scheduler.entry import Entry, Ticket
from pyggml_server.scheduler.loader import Loader
from pyggml_server.scheduler.policy import choose_victim
from pyggml_server.scheduler.process import RUNNER_COMMAND, RunnerProcess
from pyggml_server.scheduler.runner import Runner
from pyggml_server.scheduler.spec import LoadedModel, LoadProgress, ModelKey, ModelSpec, needs_reload

__all__ = ["ModelScheduler"]

_log: Final = logging.getLogger(__name__)

_MODELS_PER_GPU: Final = 3
_METRICS_TIMEOUT: Final = 1.0
_LONGEST_TIMER: Final = 10.0**7  # event loops refuse timers of many years


class ModelScheduler:
    """Loads models into runner processes, lends them out and puts them away. For one event loop.

    Args:
        config: The settings.
        runner_command: Starts a runner; the default is this package's own.
        start_runner: Starts one in another way.
        clock: Seconds, never going back; that of the event loop.
    """

    def __init__(
        self,
        config: Config,
        *,
        runner_command: Sequence[str] | None = None,
        start_runner: Callable[[], Awaitable[RunnerProcess]] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._config: Final = config
        self._clock: Final = clock
        command = tuple(runner_command or RUNNER_COMMAND)
        start = start_runner or (lambda: RunnerProcess.start(command, debug=config.debug))
        self._entries: Final[dict[ModelKey, Entry]] = {}
        self._pending: Final[list[Ticket]] = []
        self._loader = Loader(config, start, entries=self._entries, evict=self._evict, clock=clock)
        self._closed = False

    async def start(self) -> None:
        """Be ready; nothing is loaded before it is asked for."""
        self._closed = False

    async def close(self) -> None:
        """Refuse who waits (503: they may ask again), end all runners and wait for them."""
        self._closed = True
        for ticket in self._pending:
            if not ticket.granted.done():
                ticket.granted.set_exception(ServerBusyError("the server is shutting down"))
        self._pending.clear()
        for entry in list(self._entries.values()):
            if entry.load_task is not None and not entry.load_task.done():
                entry.load_task.cancel()
            elif entry.seat.state != "stopping":
                self._evict(entry)
        tasks = [task for entry in self._entries.values() for task in (entry.load_task, entry.stop_task) if task]
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- what the API calls -------------------------------------------------------------------------------------

    def lease(
        self,
        spec: ModelSpec,
        *,
        keep_alive: KeepAlive | None = None,
        priority: int = 0,
        on_progress: Callable[[LoadProgress], None] | None = None,
    ) -> AbstractAsyncContextManager[Runner]:
        """Have a model in memory for the length of a block.

        Args:
            spec: The model and how to load it.
            keep_alive: How long it stays afterwards; None: as it is, or as the settings say.
            priority: Higher ones are served first.
            on_progress: Told what the request waits for.

        Raises:
            ServerBusyError: too many requests wait already.
            ModelLoadError: it cannot be loaded; ModelMemoryError: for want of memory.
        """
        return self._lease(Ticket(spec, keep_alive=keep_alive, priority=priority, on_progress=on_progress))

    @asynccontextmanager
    async def _lease(self, ticket: Ticket) -> AsyncIterator[Runner]:
        entry = await self._admit(ticket)
        process, loaded = entry.process, entry.loaded
        assert process is not None and loaded is not None  # it was usable when it was granted
        ticket.tell(LoadProgress("ready", 1.0, entry.queued))
        try:
            yield Runner(
                process,
                loaded,
                num_ctx=ticket.spec.options.num_ctx,
                load_duration_ns=monotonic_ns() - ticket.came_ns if ticket.loads else 0,
                queue_position=entry.queued,
                priority=ticket.priority,
            )
        finally:
            self._release(entry)

    def loaded(self) -> list[LoadedModel]:
        """The models in memory or on their way, the one that stays longest first."""
        now = self._clock()
        found = [entry.describe(now=now) for entry in self._entries.values()]
        return sorted(found, key=lambda m: math.inf if m.expires_at is None else m.expires_at.timestamp(), reverse=True)

    @property
    def queued(self) -> int:
        """Requests that wait for a model to load."""
        return len(self._pending)

    async def metrics(self) -> dict[str, MetricsReply]:
        """Counters of the runners by name of model, of those that answer within a second."""
        ready = [(entry.spec.name, entry.process) for entry in self._entries.values() if entry.usable]

        async def read(name: str, process: RunnerProcess | None) -> tuple[str, MetricsReply] | None:
            try:
                async with asyncio.timeout(_METRICS_TIMEOUT):
                    return None if process is None else (name, await process.ask(Metrics))
            except (TimeoutError, ServerError):
                return None

        return dict(found for found in await asyncio.gather(*(read(*each) for each in ready)) if found is not None)

    @property
    def n_waiting(self) -> int:
        """Requests that wait, for a model to load or for a sequence of it."""
        return len(self._pending) + sum(entry.queued for entry in self._entries.values())

    async def unload(self, model: str | ModelKey) -> bool:
        """Put a model away, at once or when its last request has ended.

        Args:
            model: Its files, whatever the name that they were loaded under; or a digest or name that was asked for.

        Returns:
            whether it was in memory.
        """
        if isinstance(model, ModelKey):
            found = [entry for key, entry in self._entries.items() if key == model]
        else:
            found = [entry for entry in self._entries.values() if model.lower() in entry.names]
        await self._put_away(found)
        return bool(found)

    async def unload_all(self) -> None:
        """Put all models away, each when its last request has ended."""
        await self._put_away(list(self._entries.values()))

    async def _put_away(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            entry.set_keep_alive(KeepAlive(0))
            # one that is loading serves those who wait for it first
            entry.stop_when_idle = entry.seat.state != "loading"
            if entry.seat.idle:
                self._evict(entry)
        stopping = [entry.stop_task for entry in entries if entry.stop_task is not None]
        if stopping:
            await asyncio.wait(stopping)

    # -- waiting ------------------------------------------------------------------------------------------------

    async def _admit(self, ticket: Ticket) -> Entry:
        """Wait until the ticket is granted; its lease is counted then."""
        if self._closed:
            raise ServerBusyError("the server is shutting down")
        self._check_queue(ticket)
        self._pending.append(ticket)
        self._pump()
        try:
            return await ticket.granted
        except BaseException:
            if ticket in self._pending:
                self._pending.remove(ticket)
            if ticket.granted.done() and not ticket.granted.cancelled() and ticket.granted.exception() is None:
                self._release(ticket.granted.result())  # granted and cancelled in the same moment
            self._abandon_loads()
            self._pump()
            raise

    def _check_queue(self, ticket: Ticket) -> None:
        """
        Raises:
            ServerBusyError: the request would have to wait, and too many do already.
        """
        entry = self._entries.get(ticket.spec.key)
        here = sum(other.spec.key == ticket.spec.key for other in self._pending)
        if entry is not None and not here and self._serves(entry, ticket) and entry.seat.active < entry.n_parallel:
            return
        here += entry.queued if entry is not None else 0
        if self.n_waiting >= self._config.max_queue or here >= self._config.queue_per_model:
            raise ServerBusyError

    def _abandon_loads(self) -> None:
        """A load that nobody waits for any more is given up."""
        wanted = {ticket.spec.key for ticket in self._pending}
        for key, entry in self._entries.items():
            if entry.seat.state == "loading" and key not in wanted and entry.load_task is not None:
                entry.load_task.cancel()

    # -- deciding -----------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Do for each waiting request what can be done now."""
        if self._closed:
            return
        self._pending.sort(key=lambda ticket: ticket.order)
        for entry in self._entries.values():
            entry.seat.waiting = 0
        for ticket in self._pending:
            if ticket.spec.key in self._entries:
                self._entries[ticket.spec.key].seat.waiting += 1
        blocked: set[ModelKey] = set()
        for position, ticket in enumerate(list(self._pending)):
            self._place(ticket, position, blocked)

    def _place(self, ticket: Ticket, position: int, blocked: set[ModelKey]) -> None:
        key = ticket.spec.key
        entry = self._entries.get(key)
        if entry is None:
            self._start(ticket, position)
        elif entry.usable and key not in blocked and not entry.stop_when_idle:
            if self._serves(entry, ticket):
                self._grant(ticket, entry)
                return
            blocked.add(key)  # those behind must not keep the model busy for ever
            ticket.tell(LoadProgress("queued", 0.0, entry.seat.active))
            if entry.seat.idle:
                self._evict(entry)
        elif entry.seat.state == "loading":
            ticket.loads = True
            ticket.tell(entry.progress)
        else:
            ticket.tell(LoadProgress("queued", 0.0, position))

    @staticmethod
    def _serves(entry: Entry, ticket: Ticket) -> bool:
        """Whether a model is loaded in a way that the request can use."""
        if entry.loaded is None or not entry.usable or entry.stop_when_idle:
            return False
        return not needs_reload(ticket.spec, entry.spec, entry.loaded)

    def _start(self, ticket: Ticket, position: int) -> None:
        """Begin to load, if there may be one more model."""
        staying = [entry for entry in self._entries.values() if entry.seat.state != "stopping"]
        if len(self._entries) >= self._most_models():
            if len(staying) >= self._most_models() and (victim := self._victim()) is not None:
                self._evict(victim)
            ticket.tell(LoadProgress("queued", 0.0, position))
            return
        entry = Entry(ticket.spec, keep_alive=ticket.keep_alive or self._config.keep_alive, now=self._clock())
        entry.seat.waiting = 1
        self._entries[ticket.spec.key] = entry
        ticket.loads = True
        entry.load_task = asyncio.get_running_loop().create_task(self._load(entry))

    def _most_models(self) -> int:
        if self._config.max_loaded_models:
            return self._config.max_loaded_models
        return _MODELS_PER_GPU * max(1, self._loader.n_gpus)

    def _victim(self) -> Entry | None:
        seat = choose_victim(entry.seat for entry in self._entries.values())
        return next((entry for entry in self._entries.values() if entry.seat is seat), None)

    def _grant(self, ticket: Ticket, entry: Entry) -> None:
        self._pending.remove(ticket)
        entry.seat.active += 1
        entry.seat.waiting = max(0, entry.seat.waiting - 1)
        entry.cancel_timer()
        entry.names |= {ticket.spec.name.lower(), ticket.spec.digest}
        if ticket.keep_alive is not None:
            entry.set_keep_alive(ticket.keep_alive)
        ticket.granted.set_result(entry)

    # -- a model's life -----------------------------------------------------------------------------------------

    async def _load(self, entry: Entry) -> None:
        key = entry.spec.key
        try:
            await self._loader.load(entry, tell=lambda: self._tell(entry))
        except Exception as error:
            del self._entries[key]
            if not isinstance(error, ServerError):
                _log.exception("%s: loading failed", entry.spec.name)
                error = ServerError(f"loading failed: {type(error).__name__}: {error}")
            self._fail(entry, error)
        except BaseException:
            self._entries.pop(key, None)
            raise
        else:
            entry.seat.state, entry.seat.last_used = "ready", self._clock()
            entry.watch_task = asyncio.get_running_loop().create_task(self._watch(entry))
            self._pump()
            if entry.seat.active == 0:
                self._rest(entry)  # who asked has gone, or wants it otherwise
        finally:
            entry.load_task = None
            self._loader.notify()
            self._pump()

    def _fail(self, entry: Entry, error: Exception) -> None:
        """Those who wanted it just so get the error; with other options it may go better."""
        spec = entry.spec
        for ticket in [t for t in self._pending if t.spec.key == spec.key and t.spec.options == spec.options]:
            self._pending.remove(ticket)
            if not ticket.granted.done():
                ticket.granted.set_exception(error)

    def _tell(self, entry: Entry) -> None:
        for ticket in self._pending:
            if ticket.spec.key == entry.spec.key:
                ticket.loads = True
                ticket.tell(entry.progress)

    async def _watch(self, entry: Entry) -> None:
        """Forget a model whose process has died."""
        assert entry.process is not None
        await entry.process.ended.wait()
        if entry.seat.state == "ready":
            entry.seat.state = "stopping"
            self._forget(entry)

    def _release(self, entry: Entry) -> None:
        entry.seat.active -= 1
        entry.seat.last_used = self._clock()
        self._pump()
        if entry.seat.active == 0 and entry.seat.state == "ready":
            self._rest(entry)
        self._loader.notify()

    def _rest(self, entry: Entry) -> None:
        """Nobody uses it: keep it for a while."""
        if entry.seat.state != "ready":
            return
        seconds = entry.keep_alive.seconds
        entry.cancel_timer()
        if entry.stop_when_idle or seconds <= 0:
            self._evict(entry)
        elif not entry.keep_alive.forever:
            entry.expires = self._clock() + seconds
            loop = asyncio.get_running_loop()
            entry.timer = loop.call_later(min(seconds, _LONGEST_TIMER), self._expire, entry)

    def _expire(self, entry: Entry) -> None:
        if entry.seat.idle and entry.expires is not None:
            if self._clock() >= entry.expires - 0.01:
                _log.info("%s: not asked for any more", entry.spec.name)
                self._evict(entry)
            else:
                left = entry.expires - self._clock()
                loop = asyncio.get_running_loop()
                entry.timer = loop.call_later(min(left, _LONGEST_TIMER), self._expire, entry)

    def _evict(self, entry: Entry) -> None:
        """Begin to end its process; it is gone when ``stop_task`` is done."""
        entry.seat.state = "stopping"
        entry.cancel_timer()
        entry.stop_task = asyncio.get_running_loop().create_task(self._stop(entry))

    async def _stop(self, entry: Entry) -> None:
        try:
            if entry.process is not None:
                await entry.process.stop()
        finally:
            self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        entry.cancel_timer()
        if self._entries.get(entry.spec.key) is entry:
            del self._entries[entry.spec.key]
        self._loader.notify()
        self._pump()
