"""Continuous batching: many requests, one batch after the other.

Each step computes one batch. Requests that are answering come first, with one token each (more when a draft is verified
or a grammar forces some); what room is left goes to prompts, in equal parts. While anybody is answering, the part for
prompts is kept small, so that nobody's next token waits for a long batch (chunked prefill, Agrawal et al. 2023).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from pyggml.batch import Batch
from pyggml.errors import ContextFullError, PyggmlError
from pyggml.kvcache import Cache
from pyggml.sampling import logprobs as token_logprobs

from .decoder import Decoder
from .metrics import StepMetrics
from .slots import Slot, Slots
from .task import Task

__all__ = ["Scheduler"]

log = logging.getLogger("pyggml.engine")

Floats = npt.NDArray[np.float32]
_NO_ADAPTERS: Mapping[int, Floats] = {}
_NO_OUTPUT = np.zeros(0, np.int32)
_FIRST = np.zeros(1, np.int32)


@dataclass(slots=True)
class _Part:
    """One task's share of a batch."""

    task: Task
    slot: Slot
    begin: int  # where its tokens start in the slot
    n_known: int  # tokens of the task, drafts come after them
    draft: list[int]
    answers: bool  # the last known token is among them: there is something to choose


class Scheduler:
    """Runs tasks on the sequences of one cache.

    :meth:`submit` and :meth:`cancel` may be called from any thread; everything else by the one that calls :meth:`step`.
    """

    def __init__(
        self, decoder: Decoder, cache: Cache, slots: Slots, *, n_ctx: int, n_batch: int, n_chunk: int, can_shift: bool
    ) -> None:
        """
        Args:
            decoder: computes batches.
            cache: keys and values.
            slots: its sequences.
            n_ctx: positions per sequence.
            n_batch: most tokens in a batch.
            n_chunk: most tokens of prompts in a batch while somebody is answering.
            can_shift: the model can rotate its keys; otherwise what a shift leaves is read again.
        """
        self.decoder, self.cache, self.slots = decoder, cache, slots
        self.n_ctx, self.n_batch, self.n_chunk = n_ctx, n_batch, n_chunk
        self.can_shift = can_shift and cache.can_shift
        self.metrics = StepMetrics()
        self.running: list[Task] = []
        self._waiting: list[Task] = []
        self._arriving: deque[Task] = deque()
        self._turn = 0
        self._crowded = False  # the cache had no room: nobody is seated before somebody leaves

    # -- from any thread ----------------------------------------------------------------------------------------

    def submit(self, task: Task) -> None:
        """Queue a task; the next :meth:`step` sees it."""
        task.arrived = time.perf_counter()
        self._arriving.append(task)

    def cancel(self, task: Task) -> None:
        """End a task before the next step; its pieces so far stay readable."""
        task.cancelled = True

    @property
    def n_waiting(self) -> int:
        """Tasks without a sequence."""
        return len(self._waiting) + len(self._arriving)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.running or self._waiting or self._arriving)

    # -- one step -----------------------------------------------------------------------------------------------

    def step(self) -> list[Task]:
        """Compute one batch.

        Returns:
            The tasks that have new pieces, finished or failed. Errors of one task or batch are kept in
            :attr:`Task.error`; they do not raise here.
        """
        began = time.perf_counter()
        ended = self._admit()
        self._shift_full()
        parts = self._plan()
        touched = self._run(parts, began) if parts else []
        for task in touched:
            if task.finished:
                self._retire(task)
        self.metrics.step_seconds += time.perf_counter() - began
        return ended + touched

    def _admit(self) -> list[Task]:
        """Drop what was cancelled, and give free sequences to those who wait."""
        while self._arriving:
            self._waiting.append(self._arriving.popleft())
        ended = [task for task in (*self.running, *self._waiting) if task.cancelled and not task.finished]
        for task in ended:
            task.finish("cancelled")
            self._retire(task)  # before anybody is seated: its sequence is free now
        if self._waiting and self.slots.n_idle and not self._crowded:
            self._waiting.sort(key=lambda task: (-task.request.priority, task.arrived))
            for task in list(islice(self._waiting, self.slots.n_idle)):
                self._seat(task)
        return ended

    def _seat(self, task: Task) -> None:
        found = self.slots.acquire(task.tokens, task, key=tuple(sorted(task.request.adapters.items())))
        if found is None:
            return
        task.slot, kept = found
        self._waiting.remove(task)
        self.running.append(task)
        if not task.decoding:
            task.stats.cached_tokens = kept
            task.stats.queue_seconds = time.perf_counter() - task.arrived
        self.metrics.cached_tokens += kept
        if self.slots.saved is not None:
            self.metrics.restored_tokens = self.slots.saved.restored_tokens

    def _shift_full(self) -> None:
        full = [task for task in self.running if len(task.tokens) > self.n_ctx]
        for task in full:
            self._shift(task)
        if full and self.cache.pending_shifts:
            self.cache.apply_shifts(self.decoder.executor, self.decoder.model.shift)

    def _shift(self, task: Task) -> None:
        """Forget half of what follows ``n_keep`` (what ``n_keep`` is for: Xiao et al. 2023)."""
        slot = task.slot
        assert slot is not None
        keep = min(task.n_keep, self.n_ctx - 1)
        end = keep + max(1, (self.n_ctx - keep) // 2, len(task.tokens) - self.n_ctx)
        task.stats.shifts += 1
        self.metrics.shifts += 1
        del task.tokens[keep:end]
        if self.can_shift and end <= len(slot.tokens):
            try:
                self.cache.discard(slot.seq_id, keep, end)
            except ContextFullError:
                log.info("a context that shares cells is read again instead of shifted")
            else:
                del slot.tokens[keep:end]
                if self.cache.can_resume(slot.seq_id, len(slot.tokens)):
                    return
        self.slots.forget(slot, keep if self.cache.can_resume(slot.seq_id, keep) else 0)

    # -- what goes into the batch -------------------------------------------------------------------------------

    def _plan(self) -> list[_Part]:
        running = self.running
        if len(running) == 1 and running[0].pending == 1 and running[0].request.drafter is None:
            return [self._part(running[0], 1, 0)]
        tasks = [task for task in running if not task.finished]
        start = self._turn % len(tasks) if tasks else 0
        self._turn += 1
        tasks = tasks[start:] + tasks[:start]  # when not all fit, each gets its turn
        answering = [task for task in tasks if task.decoding and task.pending <= self.n_chunk]
        reading = [task for task in tasks if not (task.decoding and task.pending <= self.n_chunk)]
        parts, room = [], self.n_batch
        for i, task in enumerate(answering):
            spare = room - task.pending - (len(answering) - i - 1)
            if spare < 0:
                continue
            part = self._part(task, task.pending, spare)
            room -= task.pending + len(part.draft)
            parts.append(part)
        if answering:
            room = min(room, self.n_chunk)
        # Short prompts first: what they leave of their part goes to the long ones.
        for left, task in zip(range(len(reading), 0, -1), sorted(reading, key=lambda task: task.pending), strict=True):
            n = min(task.pending, -(-room // left))
            if n > 0:
                parts.append(self._part(task, n, 0))
                room -= n
        return parts

    def _part(self, task: Task, n: int, spare: int) -> _Part:
        slot = task.slot
        assert slot is not None
        begin = len(slot.tokens)
        draft: list[int] = []
        request = task.request
        if request.drafter is not None and spare > 0:
            most = min(request.n_draft, spare, self.n_ctx - len(task.tokens))
            if request.max_tokens is not None:
                most = min(most, request.max_tokens - len(task.generated) - 1)
            if most > 0:
                draft = request.drafter.draft(task.tokens, n_max=most)[:most]
            if draft and task.matcher is not None:
                draft = draft[: task.matcher.n_allowed(draft)]
                task.matcher.prefetch(draft)  # while the device computes
        return _Part(task, slot, begin, n, draft, begin + n == len(task.tokens))

    def _batch(self, parts: list[_Part]) -> Batch:
        if len(parts) == 1 and parts[0].n_known == 1 and not parts[0].draft:
            return _single(parts[0])
        tokens: list[int] = []
        positions, seq_ids, outputs = [], [], []
        for part in parts:
            n, first = part.n_known + len(part.draft), len(tokens)
            tokens += part.task.tokens[part.begin : part.begin + part.n_known]
            tokens += part.draft
            positions.append(np.arange(part.begin, part.begin + n, dtype=np.int32))
            seq_ids.append(np.full(n, part.slot.seq_id, np.int32))
            if part.answers:
                outputs.append(np.arange(first + part.n_known - 1, first + n, dtype=np.int32))
        return Batch(
            np.array(tokens, np.int32),
            np.concatenate(positions),
            np.concatenate(seq_ids),
            np.concatenate(outputs) if outputs else _NO_OUTPUT,
            adapters=_scales(parts),
        )

    # -- computing ----------------------------------------------------------------------------------------------

    def _run(self, parts: list[_Part], began: float) -> list[Task]:
        batch = self._batch(parts)
        rows = self._compute(batch, parts)
        if rows is None:
            return [part.task for part in parts if part.task.finished]
        computed = time.perf_counter()
        metrics, row = self.metrics, 0
        metrics.steps += 1
        metrics.sequences += len(parts)
        touched = []
        for part in parts:
            task, slot = part.task, part.slot
            slot.tokens += task.tokens[part.begin : part.begin + part.n_known]
            slot.tokens += part.draft
            if task.decoding:
                metrics.decode_tokens += part.n_known
                task.stats.eval_seconds += computed - began
            else:
                metrics.prompt_tokens += part.n_known
                task.stats.prompt_seconds += computed - began
            if part.answers:
                n = 1 + len(part.draft)
                self._answer(part, rows[row : row + n])
                row += n
                touched.append(task)
        chosen = time.perf_counter() - computed
        metrics.sample_seconds += chosen
        for task in touched:
            task.stats.eval_seconds += chosen
        return touched

    def _compute(self, batch: Batch, parts: list[_Part]) -> Floats | None:
        """The logits; None when it failed, and the tasks with it."""
        try:
            return self.compute(batch)
        except ContextFullError as error:
            if len(self.running) > 1:
                self._crowded = True
                self.slots.forget(parts[-1].slot)
                self._preempt(parts[-1].task)
            else:
                parts[0].task.fail(error)
            return None
        except Exception as error:
            # What the cache holds of these sequences is not known any more.
            for part in parts:
                self.slots.forget(part.slot)
                part.task.fail(error)
            if not isinstance(error, PyggmlError):
                log.exception("a batch of %d tokens failed", batch.n_tokens)
            return None

    def compute(self, batch: Batch) -> Floats:
        """The logits of a batch, ``(n_outputs, n_vocab)``, valid until the next one; idle sequences give way to it.

        Raises:
            ContextFullError: there is no room even without them.
        """
        while True:
            try:
                return self.decoder.run(batch)
            except ContextFullError:
                if not self.slots.evict():
                    raise

    def _answer(self, part: _Part, rows: Floats) -> None:
        """Choose tokens from the logits after the last known token and after each drafted one, while they agree."""
        task, draft = part.task, part.draft
        n_right = 0
        try:
            for i in range(len(draft) + 1):
                token = task.choose(rows[i])
                wanted = task.request.logprobs
                task.accept(token, None if wanted is None else token_logprobs(rows[i], token, top=wanted))
                if len(task.tokens) > self.n_ctx and not task.request.shift:
                    task.finish("length")
                right = i < len(draft) and token == draft[i]
                n_right += right
                if task.finished or not right or task.tokens[-1] != token:
                    break  # (a grammar that forced more tokens has gone past the draft)
        except PyggmlError as error:
            task.fail(error)
        if draft:
            self._judge(part, n_right)

    def _judge(self, part: _Part, n_right: int) -> None:
        """Take the wrong part of a draft out of the cache."""
        task, slot = part.task, part.slot
        length = part.begin + part.n_known + n_right
        if length < len(slot.tokens):
            self.slots.forget(slot, length)
        for counters in (task.stats, self.metrics):
            counters.drafted_tokens += len(part.draft)
            counters.accepted_tokens += n_right
        if task.request.drafter is not None:
            task.request.drafter.accepted(len(part.draft), n_right)

    # -- leaving ------------------------------------------------------------------------------------------------

    def _retire(self, task: Task) -> None:
        if task in self._waiting:
            self._waiting.remove(task)
        if task in self.running:
            self.running.remove(task)
        if task.slot is not None:
            self.slots.release(task.slot)
            task.slot = None
        self._crowded = False
        self.metrics.requests += 1
        self.metrics.cancelled += task.stats.finish_reason == "cancelled"
        self.metrics.failed += task.error is not None

    def _preempt(self, task: Task) -> None:
        """Take a task's sequence away; it reads what it has again when there is room."""
        if task.slot is not None:
            self.slots.release(task.slot)
            task.slot = None
        self.running.remove(task)
        self._waiting.append(task)
        self.metrics.preemptions += 1

    def forget_all(self) -> None:
        """Empty the cache; running tasks read their prompts again."""
        for slot in self.slots.slots:
            self.slots.forget(slot)

    def preempt_one(self) -> None:
        """Make a sequence idle: the task that came last gives its own away."""
        self._preempt(max(self.running, key=lambda task: (-task.request.priority, task.arrived)))


def _single(part: _Part) -> Batch:
    """One token of one sequence, the batch that most steps have."""
    return Batch(
        np.array([part.task.tokens[part.begin]], np.int32),
        np.array([part.begin], np.int32),
        np.array([part.slot.seq_id], np.int32),
        _FIRST if part.answers else _NO_OUTPUT,
        adapters=_scales([part]),
    )


def _scales(parts: list[_Part]) -> Mapping[int, Floats]:
    """For each adapter that any of the tasks uses, its scale for every token of the batch."""
    active = {adapter for part in parts for adapter, scale in part.task.request.adapters.items() if scale}
    if not active:
        return _NO_ADAPTERS
    counts = [part.n_known + len(part.draft) for part in parts]
    return {
        adapter: np.repeat(
            np.array([part.task.request.adapters.get(adapter, 0.0) for part in parts], np.float32), counts
        )
        for adapter in sorted(active)
    }
