"""Chunks of ``/v1/chat/completions``: server-sent events, made from bytes that are encoded once."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from pyggml_server.api.tasks import Chunk
from pyggml_server.api.v1.chat_types import FunctionCall, OutToolCall
from pyggml_server.api.v1.common_types import LogProbItem, Usage
from pyggml_server.api.v1.ids import Stamp
from pyggml_server.templates import ToolCall

__all__ = ["DONE", "ChatChunks", "out_calls"]

DONE: Final = b"data: [DONE]\n\n"
"""The end of a stream in OpenAI's form."""

_encode: Final = msgspec.json.Encoder().encode


def out_calls(calls: Sequence[ToolCall]) -> list[OutToolCall]:
    """Calls in OpenAI's form: arguments as JSON in a string, in the order in which the model wrote them."""
    return [OutToolCall(call.id, FunctionCall(call.name, _encode(call.arguments).decode())) for call in calls]


class ChatChunks:
    """Writes the chunks of one choice.

    The role comes with the first chunk only; thoughts, text and calls in chunks of their own; the reason of the end in
    a last, empty one.

    Args:
        stamp: Of the answer.
        index: Of the choice.
        usage: Whether the stream ends with counts; all chunks before then have a ``usage`` of null.
    """

    def __init__(self, stamp: Stamp, *, index: int, usage: bool) -> None:
        self._head: Final = _head(stamp) + b'"choices":[{"index":%d,"delta":{' % index
        self._tail: Final = b'}],"usage":null}\n\n' if usage else b"}]}\n\n"
        self._text: Final = self._head + b'"content":'
        self._text_tail: Final = b'},"finish_reason":null' + self._tail
        self._begun = False
        self._n_calls = 0

    def write(self, chunk: Chunk, logprobs: list[LogProbItem] | None = None) -> Iterator[bytes]:
        """Events for what came; log-probabilities go with the first of them."""
        if self._begun and logprobs is None and not chunk.thinking and not chunk.tool_calls:
            if chunk.content:
                yield self._text + _encode(chunk.content) + self._text_tail
            return
        for delta in self._deltas(chunk, logprobs):
            inner = (b"" if self._begun else b'"role":"assistant",') + delta
            self._begun = True
            extra = b""
            if logprobs is not None:
                extra = b',"logprobs":' + _encode({"content": logprobs, "refusal": None})
                logprobs = None
            yield self._head + inner + b'},"finish_reason":null' + extra + self._tail

    def finish(self, reason: str) -> bytes:
        """The last event of the choice; a call makes ``tool_calls`` of ``stop``."""
        if self._n_calls and reason == "stop":
            reason = "tool_calls"
        role = b"" if self._begun else b'"role":"assistant","content":""'
        return self._head + role + b'},"finish_reason":' + _encode(reason) + self._tail

    def _deltas(self, chunk: Chunk, logprobs: list[LogProbItem] | None) -> Iterator[bytes]:
        if chunk.thinking:
            yield b'"reasoning":' + _encode(chunk.thinking)
        if chunk.content or (logprobs and not chunk.thinking and not chunk.tool_calls):
            yield b'"content":' + _encode(chunk.content)
        for call in out_calls(chunk.tool_calls):
            document: dict[str, Any] = {"index": self._n_calls, **msgspec.to_builtins(call)}
            self._n_calls += 1
            yield b'"tool_calls":' + _encode([document])

    @staticmethod
    def usage(stamp: Stamp, usage: Usage) -> bytes:
        """Counts, in a chunk without choices."""
        return _head(stamp) + b'"choices":[],"usage":' + _encode(usage) + b"}\n\n"


def _head(stamp: Stamp) -> bytes:
    fields = {"id": stamp.id, "object": "chat.completion.chunk", "created": stamp.created, "model": stamp.model}
    return b"data: " + _encode({**fields, "system_fingerprint": "fp_ollama"})[:-1] + b","
