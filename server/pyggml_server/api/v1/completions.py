"""``POST /v1/completions``."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Final

import msgspec
from starlette.requests import Request

from pyggml_server.api.generation import Generator, Prepared
from pyggml_server.api.tasks import Final as FinalItem
from pyggml_server.api.tasks import PromptTask
from pyggml_server.api.v1.answers import Collected, Counts, collect, merge, runs
from pyggml_server.api.v1.chat_stream import DONE
from pyggml_server.api.v1.completion_stream import TextChunks
from pyggml_server.api.v1.completion_types import CompletionRequest, TextChoice, TextCompletion
from pyggml_server.api.v1.connection import Frames
from pyggml_server.api.v1.decode import decode, encode, settings_of
from pyggml_server.api.v1.errors import FieldError
from pyggml_server.api.v1.ids import Stamp
from pyggml_server.api.v1.logprobs import legacy_logprobs
from pyggml_server.api.v1.options import MAX_CHOICES, MAX_LOGPROBS, check_range, logit_bias_of, options_of
from pyggml_server.api.v1.refuse import refuse

__all__ = ["Completions", "completion_tasks"]

_DECODER: Final = msgspec.json.Decoder(CompletionRequest)
_MAX_ANSWERS: Final = 2048


class Completions:
    """The handler.

    Args:
        generator: Answers tasks.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator: Final = generator

    async def __call__(self, request: Request) -> bytes | Frames:
        """Answer, whole or as a stream.

        Raises:
            ServerError: of every kind, before the first event.
        """
        asked = await decode(request, _DECODER)
        tasks = completion_tasks(asked)
        stamp = Stamp.now("cmpl-", asked.model)
        if asked.stream:
            return self._stream(asked, tasks, stamp)
        n = asked.n or 1
        async with self._prepare(tasks) as prepared:
            found = await collect(runs(prepared, n=n, seed=asked.seed))
            return encode(_completion(asked, prepared, stamp, found))

    @asynccontextmanager
    async def _prepare(self, tasks: Sequence[PromptTask]) -> AsyncIterator[list[Prepared]]:
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self._generator.prepare(task)) for task in tasks]

    async def _stream(self, asked: CompletionRequest, tasks: Sequence[PromptTask], stamp: Stamp) -> Frames:
        counts, n = Counts(), asked.n or 1
        usage = asked.stream_options is not None and asked.stream_options.include_usage
        async with self._prepare(tasks) as prepared:
            writers = [
                TextChunks(
                    stamp,
                    index=index,
                    usage=usage,
                    echo=echo_of(asked, prepared[index // n]),
                    tokenizer=prepared[0].model.tokenizer if asked.logprobs is not None else None,
                )
                for index in range(n * len(prepared))
            ]
            async with aclosing(merge(runs(prepared, n=n, seed=asked.seed))) as items:
                async for index, item in items:
                    if isinstance(item, FinalItem):
                        counts.add(item, prompt=index // n)
                        yield writers[index].finish(item.reason)
                    elif frame := writers[index].write(item):
                        yield frame
        if usage:
            yield TextChunks.usage(stamp, counts.usage)
        yield DONE


def completion_tasks(asked: CompletionRequest) -> list[PromptTask]:
    """What a request asks of the generator: a task for each prompt.

    Raises:
        FieldError: a field is wrong, or cannot act here.
    """
    refuse(asked, "best_of")
    check_range("n", asked.n, 1, MAX_CHOICES)
    check_range("logprobs", asked.logprobs, 0, MAX_LOGPROBS)
    if asked.echo and asked.logprobs is not None:
        raise FieldError("echo has no log-probabilities: the prompt's are not computed", param="logprobs")
    if asked.echo and asked.suffix:
        raise FieldError("echo and suffix exclude each other", param="echo")
    given = {
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "frequency_penalty": asked.frequency_penalty,
        "presence_penalty": asked.presence_penalty,
        "seed": asked.seed,
        "logit_bias": logit_bias_of(asked.logit_bias),
    }
    options = options_of(asked, given, max_tokens=("max_tokens", asked.max_tokens), stop=asked.stop)
    # thoughts have no place in this answer
    settings = settings_of(asked, options, logprobs=asked.logprobs, think=False)
    return [
        PromptTask(model=asked.model, prompt=prompt, suffix=asked.suffix or "", raw=asked.raw, settings=settings)
        for prompt in _prompts(asked)
    ]


def _prompts(asked: CompletionRequest) -> list[str | list[int]]:
    given = asked.prompt
    if isinstance(given, str):
        return [given]
    if given and all(isinstance(token, int) for token in given):
        return [[token for token in given if isinstance(token, int)]]
    found = [prompt for prompt in given if not isinstance(prompt, int)]
    if not found or len(found) != len(given) or any(prompt == [] for prompt in found):
        message = "prompt must be a text, a list of texts, a list of tokens or a list of lists of tokens, none empty"
        raise FieldError(message, param="prompt")
    if len(found) * (asked.n or 1) > _MAX_ANSWERS:
        raise FieldError(f"n answers to so many prompts are more than {_MAX_ANSWERS}", param="prompt")
    return found


def echo_of(asked: CompletionRequest, prepared: Prepared) -> str:
    """The prompt as the caller gave it, where it is to stand in front of the answer."""
    task = prepared.plan.task if asked.echo else None
    if not isinstance(task, PromptTask):
        return ""
    return task.prompt if isinstance(task.prompt, str) else prepared.model.tokenizer.decode(task.prompt)


def _completion(
    asked: CompletionRequest, prepared: Sequence[Prepared], stamp: Stamp, found: Sequence[Collected]
) -> TextCompletion:
    counts, choices, n = Counts(), [], asked.n or 1
    for index, one in enumerate(found):
        mine = prepared[index // n]
        counts.add(one.final, prompt=index // n)
        choice = TextChoice(echo_of(asked, mine) + one.content, index, one.final.reason)
        if asked.logprobs is not None:
            choice.logprobs = legacy_logprobs(mine.model.tokenizer, one.logprobs, offset=0)
        choices.append(choice)
    return TextCompletion(stamp.id, stamp.created, stamp.model, choices, counts.usage)
