"""Chat and plain prompts from the task to the last token, for Ollama's and for the other APIs.

.. code-block:: python

    async with generator.prepare(task) as prepared:      # errors that have an HTTP status are raised here …
        async with aclosing(prepared.run()) as answer:
            async for item in answer:                    # … or instead of the first item
                ...                                      # Chunk, Chunk, …, Final

``run`` may be called several times at once (``n`` answers): they share the prompt's cache. Closing the iterator cancels
what is under way before the runner's next batch.
"""

import logging
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from pyggml_server.api.catalog import Catalog, OpenModel
from pyggml_server.api.metrics import ServerMetrics
from pyggml_server.api.planning import Plan, Prompt, plan_task, render_task
from pyggml_server.api.tasks import Chunk, PromptTask, Task
from pyggml_server.api.tasks import Final as FinalItem
from pyggml_server.protocol import Done, GrammarText, Text
from pyggml_server.scheduler import LoadProgress, ModelScheduler, Runner
from pyggml_server.templates import (
    Content,
    Event,
    OutputParser,
    Prelude,
    Thinking,
    ToolCall,
    answer_opening,
    open_prelude,
    output_parser,
)

__all__ = ["Generator", "Prepared"]

_prompts: Final = logging.getLogger("pyggml_server.api.prompts")
"""Only at ``OLLAMA_DEBUG=2``: they are nobody's business else."""


class Generator:
    """Serves tasks.

    Args:
        catalog: The models.
        scheduler: Loads them.
        metrics: Told how each answer ended.
        default_ctx: Context where nothing is loaded and neither request nor model names one.
    """

    def __init__(
        self, catalog: Catalog, scheduler: ModelScheduler, *, metrics: ServerMetrics, default_ctx: int
    ) -> None:
        self.catalog: Final = catalog
        self._scheduler: Final = scheduler
        self._metrics: Final = metrics
        self._default_ctx: Final = default_ctx

    @asynccontextmanager
    async def prepare(
        self, task: Task, *, on_progress: Callable[[LoadProgress], None] | None = None
    ) -> AsyncIterator["Prepared"]:
        """Check a task, load its model, write its prompt; the model stays loaded until the block ends.

        Args:
            task: What is asked.
            on_progress: Told how far loading is.

        Raises:
            ServerError: of every kind; :mod:`pyggml_server.api.errors` gives each its status.
        """
        started = time.monotonic_ns()
        model = await self.catalog.open(task.model)
        plan = plan_task(task, model)
        lease = self._scheduler.lease(
            model.spec(plan.options.load),
            keep_alive=task.settings.keep_alive,
            priority=task.settings.priority,
            on_progress=on_progress,
        )
        async with lease as runner:
            prompt = await self._render(plan, model, n_ctx=runner.n_ctx)
            _prompts.debug("%s: %d tokens: %r", task.model, len(prompt.tokens), prompt.text)
            yield Prepared(model, plan, prompt, runner, started, self._metrics)

    async def render(self, task: Task, *, limited: bool = True) -> tuple[OpenModel, Prompt]:
        """The prompt of a task, without loading any weights.

        Args:
            task: What would be asked.
            limited: Fit it into the context that it would get; False: of any length.
        """
        model = await self.catalog.open(task.model)
        plan = plan_task(task, model)
        n_ctx = plan.options.load.num_ctx or self._default_ctx
        if model.n_ctx_train:
            n_ctx = min(n_ctx, model.n_ctx_train)
        return model, await self._render(plan, model, n_ctx=n_ctx if limited else sys.maxsize)

    async def count(self, task: Task) -> int:
        """Tokens of the whole prompt of a task, however long; no weights are loaded."""
        _, prompt = await self.render(task, limited=False)
        return len(prompt.tokens)

    async def _render(self, plan: Plan, model: OpenModel, *, n_ctx: int) -> Prompt:
        return await self.catalog.run(lambda: render_task(plan, model, n_ctx=n_ctx))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A task whose model is loaded and whose prompt is written.

    Attributes:
        model: The model; its tokenizer tells what ids mean.
        plan: The checked task.
        prompt: Text and tokens.
        runner: Where the model computes.
        started_ns: When the task came, by the monotonic clock.
        metrics: Told how each answer ended.
    """

    model: OpenModel
    plan: Plan
    prompt: Prompt
    runner: Runner
    started_ns: int
    metrics: ServerMetrics

    def run(self, *, seed: int | None = None) -> AsyncGenerator[Chunk | FinalItem, None]:
        """Generate one answer: chunks, then how it ended.

        Args:
            seed: Instead of the one in the options.

        Raises:
            ServerError: the runner refused or died; before or between chunks.
        """
        return _Answer(self, seed).items()

    @property
    def thinks(self) -> bool:
        """Whether thoughts may come before the answer."""
        return bool(self.plan.think)


@dataclass(slots=True)
class _Answer:
    """One run of a prepared task: at most two passes over the runner."""

    prepared: Prepared
    seed: int | None
    done: Done = field(default_factory=lambda: Done(0, "stop"))
    calls: int = 0
    passes: int = 0

    async def items(self) -> AsyncGenerator[Chunk | FinalItem, None]:
        """The chunks of one or two passes, and the end."""
        prepared = self.prepared
        plan, renderer, text = prepared.plan, prepared.model.renderer, prepared.prompt.text
        prelude, opening = None, ""
        if plan.grammar is not None and prepared.thinks:
            # a grammar must not hold back the thoughts: they are written first, without it
            prelude = open_prelude(renderer, text, calls=plan.calls)
            async with aclosing(self._pass(prepared.prompt.tokens, None, prelude=prelude)) as chunks:
                async for chunk in chunks:
                    yield chunk
            opening = prelude.closed()
        elif plan.grammar is not None and text and not self._raw:
            opening = answer_opening(renderer, text, calls=plan.calls)
        if prelude is None or prelude.finished or self.done.reason != "length":
            tokens = self._encode(text + opening) if prelude or opening else prepared.prompt.tokens
            opened = prelude is not None or bool(opening)
            async with aclosing(self._pass(tokens, plan.grammar, opened=opened)) as chunks:
                async for chunk in chunks:
                    yield chunk
        final = self._final()
        self.prepared.metrics.record(self.prepared.model.stored.name.display, final)
        yield final

    @property
    def _raw(self) -> bool:
        """Prompt and answer are taken as they are."""
        return isinstance(self.prepared.plan.task, PromptTask) and self.prepared.plan.task.raw

    def _encode(self, text: str) -> list[int]:
        return self.prepared.model.tokenizer.encode(text, add_special=self.prepared.prompt.add_special)

    async def _pass(
        self, tokens: list[int], grammar: GrammarText | None, *, prelude: Prelude | None = None, opened: bool = False
    ) -> AsyncGenerator[Chunk, None]:
        """One stream of the runner, parsed.

        Args:
            tokens: The prompt.
            grammar: What binds it.
            prelude: It ends where the answer proper begins.
            opened: It begins with the answer proper.
        """
        parser = self._parser(prelude=prelude is not None, opened=opened)
        started, first, seen = time.monotonic_ns(), 0, 0
        held = Chunk()
        self.passes += 1
        async with aclosing(self.prepared.runner.generate(**self._request(tokens, grammar, parser))) as messages:
            async for message in messages:
                if isinstance(message, Done):
                    self._count(message)
                    break
                first = first or time.monotonic_ns()
                seen += len(message.tokens)
                events = parser.feed(message.text) if parser is not None else None
                if prelude is not None and events is not None:
                    events = prelude.take(message.text, events)
                chunk = _chunk(held, message, events)
                if chunk is not None:
                    held = Chunk()
                    self._limit_calls(chunk)
                    yield chunk
                if (prelude is not None and prelude.finished) or self._enough():
                    self._count(self._cut_short(len(tokens), seen, started, first))
                    return
        if parser is not None:
            events = parser.finish(cut=self.done.reason == "length" or self.done.stop_string is not None)
            if prelude is not None:
                events = prelude.take("", events)
            chunk = _chunk(held, None, events)
        else:
            chunk = held if held.tokens else None
        if chunk is not None:
            self._limit_calls(chunk)
            yield chunk

    def _parser(self, *, prelude: bool, opened: bool) -> OutputParser | None:
        """None where text is the answer as it stands."""
        plan, prepared = self.prepared.plan, self.prepared
        # calls in a prelude are not made: it ends before them
        tools = () if prelude else plan.tools
        marked = prepared.model.can("thinking") or prepared.model.renderer.marks_answers
        if not tools and (opened or not marked):
            return None
        if self._raw:
            return None
        renderer = prepared.model.renderer
        think, prompt = (None, "") if opened else (plan.think, prepared.prompt.text)
        if opened and plan.calls and renderer.channels is not None:
            prompt = renderer.channels.prompt_end  # the grammar of calls writes their headers
        return output_parser(renderer, tools=tools, think=think, prompt=prompt)

    def _request(self, tokens: list[int], grammar: GrammarText | None, parser: OutputParser | None) -> dict[str, Any]:
        """Fields of :class:`pyggml_server.protocol.Generate`."""
        plan, runner = self.prepared.plan, self.prepared.runner
        options, settings = plan.options, plan.settings
        sampling = dict(options.sampling)
        if self.seed is not None:
            sampling["seed"] = self.seed
        request = {
            "tokens": tokens,
            "sampling": sampling,
            "max_tokens": max(1, options.limit(runner.n_ctx) - self.done.eval_tokens),
            "stop": list(options.stop),
            "ignore_eos": options.ignore_eos,
            "shift": settings.shift,
            "truncate": settings.truncate,
            "n_keep": max(-1, options.num_keep),
            "logprobs": settings.logprobs,
            "grammar": grammar,
            "speculate": options.draft,
            "by_model": options.load.draft is not None,
            "adapters": options.adapter_scales(len(self.prepared.model.stored.adapters)),
            "priority": settings.priority,
        }
        # some models mark calls and thoughts with control tokens
        special = parser is not None and self.prepared.model.renderer.sees_special
        if special:
            request["keep_special"] = True
        return request

    def _enough(self) -> bool:
        limit = self.prepared.plan.max_calls
        return limit is not None and self.calls >= limit

    def _limit_calls(self, chunk: Chunk) -> None:
        limit = self.prepared.plan.max_calls
        if limit is not None:
            del chunk.tool_calls[max(0, limit - self.calls) :]
        self.calls += len(chunk.tool_calls)

    def _cut_short(self, n_prompt: int, seen: int, started: int, first: int) -> Done:
        """What the runner would have said of a stream that was ended from here."""
        now = time.monotonic_ns()
        first = first or now
        return Done(
            0, "stop", prompt_tokens=n_prompt, eval_tokens=seen, prompt_ns=first - started, eval_ns=now - first
        )  # fmt: skip

    def _count(self, done: Done) -> None:
        """Add the figures of one pass; the prompt is the first pass's."""
        before, self.done = self.done, done
        if self.passes > 1:
            done.prompt_tokens, done.cached_tokens = before.prompt_tokens, before.cached_tokens
        for name in (
            "truncated_tokens", "shifts", "eval_tokens", "drafted_tokens", "accepted_tokens", "queue_ns", "prompt_ns",
            "eval_ns",
        ):  # fmt: skip
            setattr(done, name, getattr(done, name) + getattr(before, name))

    def _final(self) -> FinalItem:
        done, prepared = self.done, self.prepared
        return FinalItem(
            reason=done.reason,
            stop_string=done.stop_string,
            prompt_tokens=done.prompt_tokens,
            cached_tokens=done.cached_tokens,
            eval_tokens=done.eval_tokens,
            drafted_tokens=done.drafted_tokens,
            accepted_tokens=done.accepted_tokens,
            dropped_messages=prepared.prompt.dropped_messages,
            dropped_tokens=done.truncated_tokens,
            shifts=done.shifts,
            n_ctx=prepared.runner.n_ctx,
            total_ns=time.monotonic_ns() - prepared.started_ns,
            load_ns=prepared.runner.load_duration_ns,
            queue_ns=done.queue_ns,
            prompt_ns=done.prompt_ns,
            eval_ns=done.eval_ns,
        )


def _chunk(held: Chunk, message: Text | None, events: list[Event] | None) -> Chunk | None:
    """A chunk of what the parser lets out, or None while it holds everything back; tokens wait in ``held``."""
    if message is not None:
        held.tokens += message.tokens
        held.logprobs += message.logprobs
    if events is None:
        held.content = message.text if message is not None else ""
        return held if held.content else None
    for event in events:
        if isinstance(event, Content):
            held.content += event.text
        elif isinstance(event, Thinking):
            held.thinking += event.text
        elif isinstance(event, ToolCall):
            held.tool_calls.append(event)
    if message is None:
        return held if held.tokens or events else None
    return held if events else None
