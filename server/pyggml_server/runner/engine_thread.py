"""The thread that owns the engine: takes commands, steps while there is anything to compute, hands out messages."""

import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from pyggml.engine import Engine, Task
from pyggml.errors import ModelError, PyggmlError
from pyggml_server.protocol import (
    Cancel,
    Done,
    Embed,
    Generate,
    Load,
    Loaded,
    Loading,
    Measure,
    MetricsReply,
    Rerank,
)
from pyggml_server.runner import placing
from pyggml_server.runner.drafting import Drafts
from pyggml_server.runner.jobs import Answer, TextWork, create_request, failure, read_metrics

__all__ = ["EngineThread"]

log = logging.getLogger("pyggml.runner")

_LEAST_PROGRESS: Final = 0.01
_STOP: Final = object()


class EngineThread:
    """Runs one engine.

    Args:
        send: Called from this thread with the messages of one step, all at once.
    """

    def __init__(self, send: Callable[[Sequence[Any]], None]) -> None:
        self._send = send
        self._commands: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._engine: Engine | None = None
        self._drafts: Drafts | None = None
        self._answers: dict[Task, Answer] = {}
        self._tasks: dict[int, Task] = {}
        self._texts: deque[Embed | Rerank] = deque()
        self._work: TextWork | None = None
        self._outbox: list[Any] = []
        self._compiling: set[int] = set()
        self._grammars: queue.SimpleQueue[Generate | None] = queue.SimpleQueue()
        self.state = "empty"
        """``empty``, ``loading`` or ``ready``."""
        self._thread = threading.Thread(target=self._run, name="engine")
        # A grammar may take a second to compile; nobody else's next token waits for that.
        self._compiler = threading.Thread(target=self._compile, name="grammars", daemon=True)

    # -- from other threads -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to wait for commands."""
        self._thread.start()
        self._compiler.start()

    def put(self, message: Any) -> None:
        """Hand over a command; the thread wakes at once, or sees it before its next step."""
        self._commands.put(message)

    def stop(self) -> None:
        """Close the engine, which saves what is to be saved, and end. Does not wait."""
        self._commands.put(_STOP)

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join()

    def metrics(self, id: int) -> MetricsReply:
        """Counters as they are now."""
        engine = self._engine
        if engine is None:
            return MetricsReply(id, {}, 0, 0)
        reply = read_metrics(id, engine)
        reply.waiting += len(self._texts) + len(self._compiling)
        reply.running += self._work is not None
        return reply

    # -- the loop -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._take_commands():
                if self._engine is not None:
                    self._step(self._engine)
                self._flush()
        except Exception:
            # Nobody knows what state the engine is in. The service tells those who wait, and starts another process.
            log.critical("the engine failed", exc_info=True)
            logging.shutdown()
            os._exit(1)
        finally:
            for part in (self._drafts, self._engine):
                if part is not None:
                    part.close()
            self._flush()

    def _busy(self) -> bool:
        return bool(self._answers or self._texts or self._work)

    def _take_commands(self) -> bool:
        """Do what was asked for, waiting for something while there is nothing to compute; False: it is over."""
        block = not self._busy()
        while True:
            try:
                message = self._commands.get(block)
            except queue.Empty:
                return True
            if message is _STOP:
                return False
            self._do(message)
            self._flush()
            block = False

    def _do(self, message: Any) -> None:
        try:
            if isinstance(message, Cancel):
                self._cancel(message.id)
            elif isinstance(message, _Compiled):
                self._take_compiled(message)
            elif isinstance(message, Measure):
                self._outbox.append(placing.measure(message))
            elif isinstance(message, Load):
                self._load(message)
            elif self._engine is None:
                raise ModelError("no model is loaded")
            elif isinstance(message, Generate):
                self._generate(message, self._engine)
            else:
                self._texts.append(message)
        except Exception as error:
            self._outbox.append(failure(message.id, error))

    def _flush(self) -> None:
        if self._outbox:
            self._send(self._outbox)
            self._outbox = []

    # -- loading ------------------------------------------------------------------------------------------------

    def _load(self, message: Load) -> None:
        if self._engine is not None:
            raise ModelError("a model is loaded already; a runner holds one")
        self.state, began, told = "loading", time.monotonic_ns(), -1.0

        def progress(fraction: float) -> None:
            nonlocal told
            if fraction - told >= _LEAST_PROGRESS or fraction >= 1:
                told = fraction
                self._send([Loading(message.id, fraction)])

        try:
            placed = placing.load(message, progress=progress)
        except BaseException:
            self.state = "empty"
            raise
        engine, self._drafts = placed.engine, placed.drafts
        _ = engine.tokenizer  # built once, by this thread: the other one uses it too
        self._engine, self.state = engine, "ready"
        shape, config = engine.model.shape, engine.config
        self._outbox.append(
            Loaded(
                message.id,
                n_ctx=engine.n_ctx,
                n_ctx_train=shape.n_ctx_train,
                n_parallel=config.n_parallel,
                n_vocab=shape.n_vocab or engine.tokenizer.n_vocab,
                n_embd=shape.n_embd,
                flash_attn=engine.flash_attn,
                size=sum(device["needed"] for device in placed.devices),
                size_vram=sum(device["needed"] for device in placed.devices if device["type"] != "cpu"),
                load_ns=time.monotonic_ns() - began,
                devices=placed.devices,
                n_batch=config.n_batch,
                notes=placed.notes,
            )
        )

    # -- generating ---------------------------------------------------------------------------------------------

    def _generate(self, message: Generate, engine: Engine) -> None:
        if message.grammar is not None:
            self._compiling.add(message.id)
            self._grammars.put(message)
            return
        request, cut = create_request(message, engine, self._drafts)
        self._follow(message.id, engine.submit(request), cut)

    def _follow(self, id: int, task: Task, cut: int) -> None:
        self._tasks[id] = task
        self._answers[task] = Answer(id, task, cut=cut)

    def _compile(self) -> None:
        """The other thread: requests with a grammar, up to where the engine has them."""
        while (message := self._grammars.get()) is not None:
            engine = self._engine
            if engine is None or message.id not in self._compiling:
                continue
            try:
                request, cut = create_request(message, engine, self._drafts)
                self.put(_Compiled(message.id, task=engine.submit(request), cut=cut))
            except Exception as error:
                self.put(_Compiled(message.id, error=error))

    def _take_compiled(self, found: "_Compiled") -> None:
        wanted = found.id in self._compiling
        self._compiling.discard(found.id)
        if found.task is None:
            if wanted and found.error is not None:
                self._outbox.append(failure(found.id, found.error))
            return
        self._follow(found.id, found.task, found.cut)
        if not wanted and self._engine is not None:
            self._engine.scheduler.cancel(found.task)
        self._pass_on(found.task)  # it may have had its first steps already

    def _cancel(self, id: int) -> None:
        task = self._tasks.get(id)
        if task is not None and self._engine is not None:
            self._engine.scheduler.cancel(task)
        elif id in self._compiling:
            self._compiling.discard(id)
            self._outbox.append(Done(id, "cancelled"))
        elif self._work is not None and self._work.id == id:
            self._work.job.cancel()
            self._work = None
            self._outbox.append(Done(id, "cancelled"))
        elif any(message.id == id for message in self._texts):
            self._texts = deque(message for message in self._texts if message.id != id)
            self._outbox.append(Done(id, "cancelled"))

    def _step(self, engine: Engine) -> None:
        if not engine.scheduler.idle:
            for task in engine.step():
                self._pass_on(task)
        if self._work is not None or self._texts:
            self._step_texts(engine)

    def _pass_on(self, task: Task) -> None:
        answer = self._answers.get(task)
        if answer is None:
            return
        self._outbox += answer.messages()
        if task.finished:
            del self._answers[task]
            self._tasks.pop(answer.id, None)

    # -- texts --------------------------------------------------------------------------------------------------

    def _step_texts(self, engine: Engine) -> None:
        """One batch of the texts whose turn it is."""
        id = self._work.id if self._work is not None else self._texts[0].id
        try:
            if self._work is None:
                self._work = TextWork(self._texts.popleft(), engine)
            if not self._work.job.step():
                self._outbox.append(self._work.reply())
                self._work = None
        except Exception as error:
            if not isinstance(error, PyggmlError):
                log.exception("texts could not be computed")
            self._work = None
            self._outbox.append(failure(id, error))


class _Compiled:
    """What became of a request with a grammar."""

    def __init__(self, id: int, *, task: Task | None = None, cut: int = 0, error: Exception | None = None) -> None:
        self.id, self.task, self.cut, self.error = id, task, cut, error
