"""Chunks of ``/v1/completions``: server-sent events, made from bytes that are encoded once."""

from typing import Any, Final

import msgspec

from pyggml.tokenizer import Tokenizer
from pyggml_server.api.tasks import Chunk
from pyggml_server.api.v1.common_types import Usage
from pyggml_server.api.v1.ids import Stamp
from pyggml_server.api.v1.logprobs import legacy_logprobs

__all__ = ["TextChunks"]

_encode: Final = msgspec.json.Encoder().encode


class TextChunks:
    """Writes the chunks of one choice.

    Args:
        stamp: Of the answer.
        index: Of the choice.
        usage: Whether the stream ends with counts; all chunks before then have a ``usage`` of null.
        echo: Text in front of the answer.
        tokenizer: Given where log-probabilities are wanted.
    """

    def __init__(
        self, stamp: Stamp, *, index: int, usage: bool, echo: str = "", tokenizer: Tokenizer | None = None
    ) -> None:
        self._head: Final = _head(stamp) + b'"choices":[{"index":%d,"text":' % index
        self._tail: Final = b'}],"usage":null}\n\n' if usage else b"}]}\n\n"
        self._text_tail: Final = b',"finish_reason":null,"logprobs":null' + self._tail
        self._echo = echo
        self._tokenizer: Final = tokenizer
        self._offset = 0

    def write(self, chunk: Chunk) -> bytes:
        """The event for what came; empty where nothing has to be said."""
        text = chunk.content
        if self._echo:
            text, self._echo = self._echo + text, ""
        if self._tokenizer is None:
            return self._head + _encode(text) + self._text_tail if text else b""
        logprobs: dict[str, Any] = legacy_logprobs(self._tokenizer, chunk.logprobs, offset=self._offset)
        self._offset += sum(map(len, logprobs["tokens"]))
        return self._head + _encode(text) + b',"finish_reason":null,"logprobs":' + _encode(logprobs) + self._tail

    def finish(self, reason: str) -> bytes:
        """The last event of the choice."""
        echo, self._echo = self._echo, ""
        return self._head + _encode(echo) + b',"finish_reason":' + _encode(reason) + b',"logprobs":null' + self._tail

    @staticmethod
    def usage(stamp: Stamp, usage: Usage) -> bytes:
        """Counts, in a chunk without choices."""
        return _head(stamp) + b'"choices":[],"usage":' + _encode(usage) + b"}\n\n"


def _head(stamp: Stamp) -> bytes:
    fields = {"id": stamp.id, "object": "text_completion", "created": stamp.created, "model": stamp.model}
    return b"data: " + _encode({**fields, "system_fingerprint": "fp_ollama"})[:-1] + b","
