"""One runner process as the service sees it: started, spoken to, watched, ended."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final

import msgspec

from pyggml_server.errors import ModelLoadError, RunnerDiedError, ServerBusyError
from pyggml_server.protocol import (
    VERSION,
    Cancel,
    Done,
    Failed,
    FrameError,
    FrameReader,
    Hello,
    Load,
    Loaded,
    Loading,
    Ping,
    Pong,
    Shutdown,
    ToService,
    pack,
)
from pyggml_server.scheduler.failures import raise_failure

__all__ = ["RUNNER_COMMAND", "RunnerProcess"]

_log: Final = logging.getLogger(__name__)
_stderr_log: Final = logging.getLogger("pyggml_server.runner.stderr")

RUNNER_COMMAND: Final = (sys.executable, "-m", "pyggml_server.runner")

_START_TIMEOUT: Final = 120.0
_STOP_TIMEOUT: Final = 15.0
_PING_EVERY: Final = 10.0
_PING_PATIENCE: Final = 60.0
_LAST_LINES: Final = 200
_LONGEST_LINE: Final = 2000


class _Channel:
    """The answers to one request, in order; waiting costs one future."""

    __slots__ = ("_loop", "_waiter", "error", "items")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.items: deque[Any] = deque()
        self.error: BaseException | None = None
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None

    def put(self, item: Any) -> None:
        self.items.append(item)
        self._wake()

    def fail(self, error: BaseException) -> None:
        self.error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Any:
        """The next answer.

        Raises:
            RunnerDiedError: there will be none. ServerBusyError: nor from anybody else, the server ends.
        """
        while not self.items:
            if self.error is not None:
                raise self.error
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self.items.popleft()


class _Link(asyncio.Protocol):
    """The service's end of the socket: gives each message to the channel of its request."""

    def __init__(self, *, on_end: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader(ToService)
        self.on_end = on_end
        self.transport: asyncio.WriteTransport | None = None
        self.channels: dict[int, _Channel] = {}
        self.hello: asyncio.Future[Hello] = self._loop.create_future()
        self.last_heard = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport
        self.send(Hello(VERSION, os.getpid()))

    def data_received(self, data: bytes) -> None:
        self.last_heard = time.monotonic()
        try:
            messages = self._reader.feed(data)
        except FrameError as error:
            _log.error("a runner sent %s", error)
            self.close()
            return
        for message in messages:
            if isinstance(message, Hello):
                if not self.hello.done():
                    self.hello.set_result(message)
            elif (channel := self.channels.get(message.id)) is not None:
                channel.put(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self.on_end()

    def send(self, message: Any) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(pack([message]))

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class RunnerProcess:
    """A running runner. :meth:`start` makes one; :meth:`stop` or :meth:`kill` end it."""

    def __init__(self, process: asyncio.subprocess.Process, link: _Link) -> None:
        """For :meth:`start`."""
        self._process = process
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._next_id = 0
        self._path = ""
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._stopping = self._lost = self._killed = False
        self.ended: Final = asyncio.Event()
        """Set once the process has gone."""
        self.error: RunnerDiedError | None = None
        """How it ended, once it has."""
        self._tasks = [self._loop.create_task(self._watch()), self._loop.create_task(self._ping())]

    # -- life ---------------------------------------------------------------------------------------------------

    @classmethod
    async def start(cls, command: Sequence[str] = RUNNER_COMMAND, *, debug: int = 0) -> "RunnerProcess":
        """Start a process and wait until it says hello.

        Raises:
            ModelLoadError: it cannot be started, or speaks another version.
            RunnerDiedError: it ended before it said anything.
        """
        # A pair has no path: nobody else can connect, and nothing is left behind, however the two end.
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                return await cls._start(command, ours, theirs, debug=debug)
            except OSError as error:
                raise ModelLoadError(f"the runner process cannot be started: {error}") from error

    @classmethod
    async def _start(
        cls, command: Sequence[str], ours: socket.socket, theirs: socket.socket, *, debug: int
    ) -> "RunnerProcess":
        gone = asyncio.Event()
        link = _Link(on_end=gone.set)
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
        end = theirs.fileno()
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                *("--socket", str(end), "--parent", str(os.getpid()), "--debug", str(debug)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                limit=2**20,
                pass_fds=(end,),
            )
        except BaseException:
            link.close()
            raise
        theirs.close()  # the process has it; its end shows here at once
        runner = cls(process, link)
        try:
            await runner._greet(link.hello)
        except BaseException:
            runner.kill()
            await runner.ended.wait()
            raise
        link.on_end = runner._hung_up
        if gone.is_set():
            runner._hung_up()
        return runner

    async def _greet(self, hello: asyncio.Future[Hello]) -> None:
        ended = self._loop.create_task(self.ended.wait())
        either: set[asyncio.Future[Any]] = {hello, ended}
        try:
            await asyncio.wait(either, timeout=_START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        if not hello.done():
            if self.error is not None:
                raise self.error
            raise ModelLoadError(f"the runner process said nothing for {_START_TIMEOUT:.0f} s")
        if hello.result().version != VERSION:
            raise ModelLoadError(
                f"the runner speaks version {hello.result().version} of the protocol, the service {VERSION}: "
                "restart the service after an upgrade"
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can still be spoken to."""
        return self.error is None and not self._stopping and not self._lost

    @property
    def last_words(self) -> str:
        """The end of what it wrote to standard error."""
        return "\n".join(self._lines)

    async def _watch(self) -> None:
        """Read what it writes to standard error until it ends, then tell everybody who waits."""
        stream = self._process.stderr
        assert stream is not None
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # a line longer than the buffer; what was in it is dropped
                continue
            if not line:
                break
            text = line.decode("utf-8", "replace").rstrip()[:_LONGEST_LINE]
            self._lines.append(text)
            _stderr_log.debug("[%d] %s", self.pid, text)
        code = await self._process.wait()
        self._end(code)

    def _end(self, code: int) -> None:
        words = self.last_words
        if code < 0:
            how = f"was ended by {_signal_name(-code)}"
            if code == -signal.SIGKILL and not self._killed:
                how += (
                    ", as the system does when memory is short (take a smaller model, num_ctx or OLLAMA_NUM_PARALLEL)"
                )
        else:
            how = f"ended with status {code}"
        message = f"the model's runner process {how}"
        if not self._stopping:
            if words:
                message += f": {_gist(self._lines)}"
            _log.error("runner %d %s%s", self.pid, how, f"; its last words:\n{words}" if words else "")
        self.error = RunnerDiedError(message, last_words=words)
        for channel in list(self._link.channels.values()):
            if self._stopping:  # nothing but the server's end ends one that is used
                channel.fail(ServerBusyError("the server is shutting down; the answer is not complete"))
            else:
                channel.fail(RunnerDiedError(message, last_words=words))
        self._link.close()
        self.ended.set()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()

    def _hung_up(self) -> None:
        """The socket has closed: the process is dying, or of no use."""
        self._lost = True
        if not self.ended.is_set() and not self._stopping:
            self._loop.call_later(2.0, self._kill)  # time for its last words

    async def _ping(self) -> None:
        """Ask for a sign of life while there is none; a process that hangs is ended."""
        while True:
            await asyncio.sleep(_PING_EVERY)
            silent = time.monotonic() - self._link.last_heard
            if silent > _PING_PATIENCE:
                self._lines.append(f"no sign of life for {silent:.0f} s")
                self._kill()
                return
            if silent > _PING_EVERY / 2:
                self._link.send(Ping(0))

    async def stop(self) -> None:
        """Let it save what it has and end; after a while it is killed. Returns when it has gone."""
        self._stopping = True
        self._link.send(Shutdown())
        try:
            async with asyncio.timeout(_STOP_TIMEOUT):
                await self.ended.wait()
        except TimeoutError:
            self.kill()
            await self.ended.wait()

    def kill(self) -> None:
        """End it at once."""
        self._stopping = True
        self._kill()

    def _kill(self) -> None:
        if not self.ended.is_set():
            self._killed = True
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    # -- speaking to it -----------------------------------------------------------------------------------------

    def send(self, message: Any) -> None:
        """Send a message that has no answer, or whose channel is open already."""
        self._link.send(message)

    def _open(self) -> tuple[int, _Channel]:
        if self.error is not None:
            raise RunnerDiedError(str(self.error), last_words=self.error.last_words)
        self._next_id += 1
        channel = _Channel(self._loop)
        self._link.channels[self._next_id] = channel
        return self._next_id, channel

    async def ask(self, kind: type[msgspec.Struct], **fields: Any) -> Any:
        """One question, one answer; cancelling it cancels the question.

        Raises:
            RequestRefusedError: the engine refused. RunnerDiedError: it ended.
        """
        id, channel = self._open()
        answered = False
        try:
            self._link.send(kind(id=id, **fields))
            message = await channel.get()
            answered = True
        finally:
            del self._link.channels[id]
            if not answered:
                self._link.send(Cancel(id))
        if isinstance(message, Failed):
            raise_failure(message, path=self._path)
        return message

    async def stream(self, kind: type[msgspec.Struct], **fields: Any) -> AsyncGenerator[Any, None]:
        """One question, answers up to :class:`Done`; closing the iterator cancels the question.

        Raises:
            RequestRefusedError: the engine refused. RunnerDiedError: it ended.
        """
        id, channel = self._open()
        finished = False
        try:
            self._link.send(kind(id=id, **fields))
            while not finished:
                message = channel.items.popleft() if channel.items else await channel.get()
                if isinstance(message, Failed):
                    finished = True
                    raise_failure(message, path=self._path)
                finished = isinstance(message, Done)
                yield message
        finally:
            del self._link.channels[id]
            if not finished:
                self._link.send(Cancel(id))

    async def load(self, *, on_progress: Callable[[float], None], stall: float | None, **fields: Any) -> Loaded:
        """Load a model.

        Args:
            on_progress: told the fraction of the weights that is there.
            stall: seconds without progress after which it is given up; None: no limit.
            fields: of :class:`pyggml_server.protocol.Load`.

        Raises:
            ModelLoadError: it cannot be loaded, or stood still. RunnerDiedError: the process ended.
        """
        id, channel = self._open()
        self._path = fields["path"]
        try:
            self._link.send(Load(id=id, **fields))
            fraction = 0.0
            while True:
                try:
                    async with asyncio.timeout(stall):
                        message = await channel.get()
                except TimeoutError:
                    raise ModelLoadError(
                        f"timed out waiting for llama runner to start - progress {fraction:.2f} - {_gist(self._lines)}"
                    ) from None
                if isinstance(message, Loading):
                    fraction = message.fraction
                    on_progress(fraction)
                elif isinstance(message, Loaded):
                    return message
                elif isinstance(message, Failed):
                    raise_failure(message, loading=True)
        finally:
            del self._link.channels[id]

    async def ping(self) -> Pong:
        """A sign of life, and the state.

        Raises:
            RunnerDiedError: there is none.
        """
        pong: Pong = await self.ask(Ping)
        return pong


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({signal.strsignal(number)})"
    except ValueError:
        return f"signal {number}"


_TELLING: Final = ("ggml stopped the process", "GGML_ASSERT", "Fatal Python error", "MemoryError", "Error:", "error:")


def _gist(lines: Sequence[str]) -> str:
    """The line that tells most, for a message of one line."""
    for mark in _TELLING:
        for line in reversed(lines):
            if mark in line:
                return line.strip()
    return next((line.strip() for line in reversed(lines) if line.strip()), "no last words")
