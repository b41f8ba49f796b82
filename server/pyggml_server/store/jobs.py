"""Long operations that several clients may watch: one runs, all see its progress, the last to leave cancels it."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

from pyggml_server.store.progress import Progress, Report

__all__ = ["CancelledWork", "Jobs", "ThreadReport"]

_Key = tuple[str, str]
_INTERVAL: Final = 0.06
_HISTORY: Final = 1000


class CancelledWork(Exception):
    """Raised inside a thread whose result nobody wants."""


class _Listener:
    """What one client has not read yet; of a stage that counts bytes only the newest count is kept."""

    def __init__(self, history: dict[_Key, Progress]) -> None:
        self.pending = dict(history)
        self.news = asyncio.Event()
        self.news.set()

    def add(self, key: _Key, event: Progress) -> None:
        self.pending[key] = event
        self.news.set()

    def take(self) -> list[Progress]:
        events = list(self.pending.values())
        self.pending.clear()
        self.news.clear()
        return events


class _Job:
    def __init__(self, work: Callable[[Report], Awaitable[None]]) -> None:
        self.listeners: set[_Listener] = set()
        self.history: dict[_Key, Progress] = {}
        self.task = asyncio.ensure_future(work(self.publish))

    def publish(self, progress: Progress) -> None:
        """Tell all listeners; to be called in the event loop."""
        key = (progress.status, progress.digest)
        if len(self.history) < _HISTORY or key in self.history:
            self.history[key] = progress
        for listener in self.listeners:
            listener.add(key, progress)


class Jobs:
    """Running operations by key."""

    def __init__(self) -> None:
        self._jobs: Final[dict[str, _Job]] = {}

    async def watch(self, key: str, work: Callable[[Report], Awaitable[None]]) -> AsyncGenerator[Progress, None]:
        """The progress of the operation ``key``, which is started if it does not run.

        Args:
            key: What makes two requests the same one.
            work: Does it; the function it receives takes news and belongs to the event loop.

        Raises:
            Exception: what ``work`` raised, after the progress up to then.
        """
        job = self._jobs.get(key)
        if job is None:
            job = self._jobs[key] = _Job(work)
        listener = _Listener(job.history)
        job.listeners.add(listener)
        try:
            async for event in self._events(job, listener):
                yield event
        finally:
            job.listeners.discard(listener)
            if (job.task.done() or not job.listeners) and self._jobs.get(key) is job:
                del self._jobs[key]
            if not job.listeners and not job.task.done():
                job.task.cancel()
                await asyncio.gather(job.task, return_exceptions=True)

    @staticmethod
    async def _events(job: _Job, listener: _Listener) -> AsyncGenerator[Progress, None]:
        def wake(_task: object) -> None:
            listener.news.set()

        job.task.add_done_callback(wake)
        try:
            while True:
                await listener.news.wait()
                finished = job.task.done()
                for event in listener.take():
                    yield event
                if finished:
                    break
        finally:
            job.task.remove_done_callback(wake)
        job.task.result()


class ThreadReport:
    """Takes news in a thread and brings it to the event loop, not more often than can be read.

    Args:
        publish: Takes the news in the event loop.
    """

    def __init__(self, publish: Report) -> None:
        self._publish: Final = publish
        self._loop: Final = asyncio.get_running_loop()
        self._cancelled: Final = threading.Event()
        self._last: tuple[_Key, float] = (("", ""), 0.0)

    def __call__(self, progress: Progress) -> None:
        """Take one piece of news.

        Raises:
            CancelledWork: nobody waits for the result.
        """
        if self._cancelled.is_set():
            raise CancelledWork
        key, now = (progress.status, progress.digest), time.monotonic()
        soon = self._last[0] == key and now - self._last[1] < _INTERVAL
        if soon and progress.completed != progress.total:
            return
        self._last = (key, now)
        self._loop.call_soon_threadsafe(self._publish, progress)

    async def run(self, work: Callable[[Report], object]) -> None:
        """Run ``work`` in a thread; when the caller is cancelled, the thread ends at its next news."""
        try:
            await asyncio.to_thread(work, self)
        except asyncio.CancelledError:
            self._cancelled.set()
            raise
