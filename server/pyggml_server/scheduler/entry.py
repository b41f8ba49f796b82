"""What the scheduler knows of one model and of one request that waits."""

import asyncio
import itertools
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from pyggml_server.config import KeepAlive
from pyggml_server.protocol import Loaded
from pyggml_server.scheduler.policy import Resident
from pyggml_server.scheduler.process import RunnerProcess
from pyggml_server.scheduler.spec import LoadedModel, LoadProgress, ModelSpec

__all__ = ["Entry", "Ticket"]

_numbers: Final = itertools.count()


class Ticket:
    """A request that waits for its model."""

    def __init__(
        self,
        spec: ModelSpec,
        *,
        keep_alive: KeepAlive | None,
        priority: int,
        on_progress: Callable[[LoadProgress], None] | None,
    ) -> None:
        self.spec = spec
        self.keep_alive = keep_alive
        self.priority = priority
        self._on_progress = on_progress
        self._told: LoadProgress | None = None
        self.came_ns = time.monotonic_ns()
        self.number = next(_numbers)
        self.granted: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        self.loads = False
        """Whether it had to wait for a load."""

    @property
    def order(self) -> tuple[int, int]:
        """Higher priority first, then who came first."""
        return (-self.priority, self.number)

    def tell(self, progress: LoadProgress) -> None:
        """Report, if there is news and anybody who wants to know."""
        if self._on_progress is not None and progress != self._told:
            self._told = progress
            self._on_progress(progress)


class Entry:
    """A model in memory, or on its way in or out."""

    def __init__(self, spec: ModelSpec, *, keep_alive: KeepAlive, now: float) -> None:
        self.spec = spec
        self.names = {spec.name.lower(), spec.digest}
        self.keep_alive = keep_alive
        self.seat = Resident(
            keep_alive=keep_alive.seconds, last_used=now, file_size=_file_size(spec)
        )  # what decisions look at
        self.process: RunnerProcess | None = None
        self.loaded: Loaded | None = None
        self.progress = LoadProgress("starting")
        self.load_task: asyncio.Task[None] | None = None
        self.stop_task: asyncio.Task[None] | None = None
        self.watch_task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.expires: float | None = None
        self.stop_when_idle = False
        self.admitted = False
        """Whether it may take memory, or has."""

    @property
    def usable(self) -> bool:
        """Whether requests can be sent to it."""
        return self.seat.state == "ready" and self.process is not None and self.process.alive

    @property
    def n_parallel(self) -> int:
        """Requests that it answers at once."""
        return self.loaded.n_parallel if self.loaded is not None else 1

    @property
    def queued(self) -> int:
        """Requests that have the model and wait for a sequence of it."""
        return max(0, self.seat.active - self.n_parallel)

    def set_keep_alive(self, keep_alive: KeepAlive) -> None:
        """How long it stays from now on."""
        self.keep_alive = keep_alive
        self.seat.keep_alive = keep_alive.seconds

    def cancel_timer(self) -> None:
        """It does not expire for now."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer, self.expires = None, None

    def describe(self, *, now: float) -> LoadedModel:
        """For ``/api/ps``."""
        expires: datetime | None = None
        if not self.keep_alive.forever:
            left = self.expires - now if self.expires is not None else self.keep_alive.seconds
            expires = datetime.now().astimezone() + timedelta(seconds=left)
        loaded = self.loaded
        return LoadedModel(
            name=self.spec.name,
            digest=self.spec.digest,
            state="stopping" if self.stop_when_idle else self.seat.state,
            size=loaded.size if loaded is not None else 0,
            size_vram=loaded.size_vram if loaded is not None else 0,
            n_ctx=loaded.n_ctx if loaded is not None else self.spec.options.num_ctx or 0,
            n_parallel=self.n_parallel,
            n_active=self.seat.active,
            queued=self.queued,
            waiting=self.seat.waiting,
            keep_alive=self.keep_alive,
            expires_at=expires,
            details=self.spec.details,
            pid=self.process.pid if self.process is not None else None,
            flash_attn=loaded.flash_attn if loaded is not None else None,
            notes=tuple(loaded.notes) if loaded is not None else (),
        )


def _file_size(spec: ModelSpec) -> int:
    try:
        return spec.path.stat().st_size
    except OSError:
        return 0  # loading will say what is wrong with the file
