"""Several answers at once: collected, or one after another as they come."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from pyggml_server.api.generation import Prepared
from pyggml_server.api.tasks import Chunk
from pyggml_server.api.tasks import Final as FinalItem
from pyggml_server.api.v1.common_types import PromptDetails, Usage
from pyggml_server.protocol import LogProbs
from pyggml_server.templates import ToolCall

__all__ = ["Collected", "Counts", "Item", "collect", "merge", "runs"]

Item = Chunk | FinalItem
_AHEAD: Final = 64  # items that may wait for a client that reads slowly


@dataclass(slots=True)
class Collected:
    """One whole answer."""

    content: str = ""
    thinking: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[LogProbs] = field(default_factory=list)
    n_thinking: int = 0
    final: FinalItem = field(default_factory=lambda: FinalItem(reason="stop"))

    @property
    def finish_reason(self) -> str:
        """``tool_calls`` where calls were made and nothing cut the answer off, else ``stop`` or ``length``."""
        return "tool_calls" if self.tool_calls and self.final.reason == "stop" else self.final.reason


@dataclass(slots=True)
class Counts:
    """Tokens of several answers; a prompt that they share counts once."""

    prompt: int = 0
    cached: int = 0
    answer: int = 0
    dropped_messages: int = 0
    dropped_tokens: int = 0
    shifts: int = 0
    _prompts: set[int] = field(default_factory=set)

    def add(self, final: FinalItem, *, prompt: int = 0) -> None:
        """Count an answer to the prompt with this number; the first answer tells what was remembered of it."""
        self.answer += final.eval_tokens
        self.shifts += final.shifts
        if prompt not in self._prompts:
            self._prompts.add(prompt)
            self.prompt += final.prompt_tokens
            self.cached += final.cached_tokens
            self.dropped_messages += final.dropped_messages
            self.dropped_tokens += final.dropped_tokens

    @property
    def usage(self) -> Usage:
        """In OpenAI's words."""
        usage = Usage(self.prompt, self.answer, self.prompt + self.answer, PromptDetails(self.cached))
        if lost := self.lost:
            usage.truncated = lost
        return usage

    @property
    def lost(self) -> dict[str, int]:
        """What the model did not see or forgot: messages, tokens, and how often the context was shifted."""
        lost = {"messages": self.dropped_messages, "tokens": self.dropped_tokens, "shifts": self.shifts}
        return lost if any(lost.values()) else {}


def runs(prepared: Sequence[Prepared], *, n: int, seed: int | None) -> list[AsyncGenerator[Item, None]]:
    """``n`` answers to each prompt, in the order of choices. With a seed they differ, and are the same every time."""
    return [one.run(seed=None if seed is None or seed < 0 else seed + index) for one in prepared for index in range(n)]


async def collect(answers: Sequence[AsyncGenerator[Item, None]]) -> list[Collected]:
    """All answers, whole. An error of one ends the others."""
    tasks = [asyncio.ensure_future(_collect_one(answer)) for answer in answers]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await _end(tasks)


async def _collect_one(answer: AsyncGenerator[Item, None]) -> Collected:
    found, content, thinking = Collected(), list[str](), list[str]()
    async with aclosing(answer):
        async for item in answer:
            if isinstance(item, FinalItem):
                found.final = item
                continue
            content.append(item.content)
            thinking.append(item.thinking)
            found.tool_calls += item.tool_calls
            found.tokens += item.tokens
            found.logprobs += item.logprobs
            found.n_thinking += len(item.tokens) if item.thinking and not item.content else 0
    found.content, found.thinking = "".join(content), "".join(thinking)
    return found


async def merge(answers: Sequence[AsyncGenerator[Item, None]]) -> AsyncGenerator[tuple[int, Item], None]:
    """Items of all answers with the number of each, as they come. An error of one ends all."""
    if len(answers) == 1:
        async with aclosing(answers[0]) as only:
            async for item in only:
                yield 0, item
        return
    queue = asyncio.Queue[tuple[int, Item] | Exception | None](_AHEAD)
    tasks = [asyncio.ensure_future(_pump(queue, index, answer)) for index, answer in enumerate(answers)]
    try:
        left = len(tasks)
        while left:
            found = await queue.get()
            if isinstance(found, Exception):
                raise found
            if found is None:
                left -= 1
            else:
                yield found
    finally:
        await _end(tasks)


async def _end(tasks: Sequence["asyncio.Future[Any]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(
    queue: "asyncio.Queue[tuple[int, Item] | Exception | None]", index: int, answer: AsyncGenerator[Item, None]
) -> None:
    try:
        async with aclosing(answer):
            async for item in answer:
                await queue.put((index, item))
    except Exception as error:
        await queue.put(error)
    else:
        await queue.put(None)
