"""Items of the generator as lines of Ollama's answers."""

from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from pyggml.tokenizer import Tokenizer
from pyggml_server.api.answers import (
    ChatAnswer,
    GenerateAnswer,
    LogProb,
    OutFunction,
    OutMessage,
    OutToolCall,
    TopLogProb,
)
from pyggml_server.api.tasks import Chunk, Final
from pyggml_server.protocol import LogProbs
from pyggml_server.scheduler import LoadProgress
from pyggml_server.templates import ToolCall

__all__ = ["ChatWriter", "GenerateWriter", "Writer", "progress_of", "token_text"]


def token_text(tokenizer: Tokenizer, token: int) -> tuple[str, list[int]]:
    """What a token stands for, as text and as bytes; a part of a character is U+FFFD in the text."""
    data = tokenizer.token_bytes(token)
    return data.decode("utf-8", "replace"), list(data)


def progress_of(progress: LoadProgress) -> dict[str, Any]:
    """The field ``load_progress`` of a line."""
    return {"status": progress.status, "fraction": round(progress.fraction, 4), "position": progress.position}


class Writer(Protocol):
    """Writes the lines of one kind of answer."""

    def part(self, chunk: Chunk) -> msgspec.Struct:
        """A line that is not the last."""

    def last(self, chunk: Chunk, final: Final) -> msgspec.Struct:
        """The last line; of an answer that is not streamed, the only one."""

    def empty(self, reason: str = "", **fields: Any) -> msgspec.Struct:
        """A line without text: about loading, or of a request that asked for no text."""


class ChatWriter:
    """Lines of ``/api/chat``.

    Args:
        model: The name that the request gave.
        tokenizer: Tells what tokens of log-probabilities are; None where none are asked for.
    """

    def __init__(self, model: str, tokenizer: Tokenizer | None = None) -> None:
        self._model = model
        self._tokenizer = tokenizer

    def part(self, chunk: Chunk) -> ChatAnswer:
        """See :class:`Writer`."""
        answer = ChatAnswer(model=self._model, created_at=datetime.now(UTC), message=_message(chunk), done=False)
        if chunk.logprobs:
            answer.logprobs = _logprobs(chunk.logprobs, self._tokenizer)
        return answer

    def last(self, chunk: Chunk, final: Final) -> ChatAnswer:
        """See :class:`Writer`."""
        return ChatAnswer(
            model=self._model,
            created_at=datetime.now(UTC),
            message=_message(chunk),
            logprobs=_logprobs(chunk.logprobs, self._tokenizer),
            **_figures(final),
        )

    def empty(self, reason: str = "", **fields: Any) -> ChatAnswer:
        """See :class:`Writer`."""
        message = OutMessage(role="assistant", content="")
        return ChatAnswer(
            model=self._model,
            created_at=datetime.now(UTC),
            message=message,
            done=bool(reason),
            done_reason=reason,
            **fields,
        )


class GenerateWriter:
    """Lines of ``/api/generate``.

    Args:
        model: The name that the request gave.
        tokenizer: Tells what tokens of log-probabilities are; None where none are asked for.
        prompt: Tokens of the prompt, for ``context``; None: the answer has no ``context``.
    """

    def __init__(self, model: str, tokenizer: Tokenizer | None = None, *, prompt: list[int] | None = None) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._context = None if prompt is None else list(prompt)

    def part(self, chunk: Chunk) -> GenerateAnswer:
        """See :class:`Writer`."""
        self._remember(chunk)
        answer = GenerateAnswer(
            model=self._model, created_at=datetime.now(UTC), response=chunk.content, thinking=chunk.thinking, done=False
        )
        if chunk.logprobs:
            answer.logprobs = _logprobs(chunk.logprobs, self._tokenizer)
        return answer

    def last(self, chunk: Chunk, final: Final) -> GenerateAnswer:
        """See :class:`Writer`."""
        self._remember(chunk)
        return GenerateAnswer(
            model=self._model,
            created_at=datetime.now(UTC),
            response=chunk.content,
            thinking=chunk.thinking,
            context=self._context or [],
            logprobs=_logprobs(chunk.logprobs, self._tokenizer),
            **_figures(final),
        )

    def empty(self, reason: str = "", **fields: Any) -> GenerateAnswer:
        """See :class:`Writer`."""
        return GenerateAnswer(
            model=self._model,
            created_at=datetime.now(UTC),
            response="",
            done=bool(reason),
            done_reason=reason,
            **fields,
        )

    def _remember(self, chunk: Chunk) -> None:
        if self._context is not None:
            self._context += chunk.tokens


def _message(chunk: Chunk) -> OutMessage:
    message = OutMessage(role="assistant", content=chunk.content, thinking=chunk.thinking)
    if chunk.tool_calls:
        message.tool_calls = [_call(call) for call in chunk.tool_calls]
    return message


def _call(call: ToolCall) -> OutToolCall:
    return OutToolCall(
        id=call.id, function=OutFunction(index=call.index, name=call.name, arguments=dict(call.arguments))
    )


def _logprobs(found: list[LogProbs], tokenizer: Tokenizer | None) -> list[LogProb]:
    if tokenizer is None:
        return []
    lines = []
    for entry in found:
        text, data = token_text(tokenizer, entry.token)
        top = []
        for token, logprob in entry.top:
            top_text, top_data = token_text(tokenizer, token)
            top.append(TopLogProb(token=top_text, logprob=logprob, bytes=top_data))
        lines.append(LogProb(token=text, logprob=entry.logprob, bytes=data, top_logprobs=top))
    return lines


def _figures(final: Final) -> dict[str, Any]:
    return {
        "done": True,
        "done_reason": final.reason,
        "total_duration": final.total_ns,
        "load_duration": final.load_ns,
        "prompt_eval_count": final.prompt_tokens,
        "prompt_eval_cached_count": final.cached_tokens,
        "prompt_eval_duration": final.prompt_ns,
        "eval_count": final.eval_tokens,
        "eval_duration": final.eval_ns,
        "truncated": final.truncated,
        "dropped_messages": final.dropped_messages,
        "dropped_tokens": final.dropped_tokens,
        "context_shifts": final.shifts,
        "num_ctx": final.n_ctx,
        "stop_string": final.stop_string or "",
    }
