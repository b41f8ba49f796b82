"""Events of ``/v1/responses`` in the order of OpenAI's reference; without a stream, the same items."""

from collections.abc import Iterator
from typing import Final

import msgspec

from pyggml_server.api.tasks import Chunk
from pyggml_server.api.tasks import Final as FinalItem
from pyggml_server.api.v1.common_types import LogProbItem
from pyggml_server.api.v1.ids import new_id
from pyggml_server.api.v1.responses_items import (
    Document,
    call_item,
    end_of_response,
    message_item,
    reasoning_item,
    text_part,
)
from pyggml_server.templates import ToolCall

__all__ = ["ResponseEvents"]

_encode: Final = msgspec.json.Encoder().encode


class ResponseEvents:
    """Writes the events of one response, and remembers its items.

    Args:
        response: As it begins (:func:`~pyggml_server.api.v1.responses_items.new_response`).
        encrypted: Whether thoughts are wanted a second time, as ``encrypted_content``.
    """

    def __init__(self, response: Document, *, encrypted: bool = False) -> None:
        self.response = response
        self._encrypted: Final = encrypted
        self._output: list[Document] = []
        self._number = 0
        self._kind = ""  # of the item that is being written: message, reasoning or none
        self._id = ""
        self._texts: list[str] = []
        self._logprobs: list[LogProbItem] = []
        self._delta = b""
        self._n_reasoning = 0

    def begin(self) -> Iterator[bytes]:
        """What comes before any item."""
        yield self._event("response.created", response=self.response)
        yield self._event("response.in_progress", response=self.response)

    def write(self, chunk: Chunk, logprobs: list[LogProbItem] | None = None) -> Iterator[bytes]:
        """Events for what came."""
        if chunk.thinking:
            self._n_reasoning += 0 if chunk.content else len(chunk.tokens)
            if self._kind != "reasoning":
                yield from self._close()
                yield from self._open_reasoning()
            yield self._text(chunk.thinking, b"")
        if chunk.content:
            if self._kind != "message":
                yield from self._close()
                yield from self._open_message()
            self._logprobs += logprobs or ()
            yield self._text(chunk.content, b',"logprobs":' + (_encode(logprobs) if logprobs else b"[]"))
        for call in chunk.tool_calls:
            yield from self._close()
            yield from self._call(call)

    def finish(self, final: FinalItem) -> Iterator[bytes]:
        """What comes after all items; afterwards :attr:`response` is the whole one."""
        cut = final.reason == "length"
        yield from self._close(status="incomplete" if cut else "completed")
        self.response = end_of_response(self.response, self._output, final, n_reasoning=self._n_reasoning)
        yield self._event("response.incomplete" if cut else "response.completed", response=self.response)

    def fail(self, message: str) -> bytes:
        """The end of a response that broke in the middle."""
        error = {"code": "server_error", "message": message}
        self.response = {**self.response, "status": "failed", "error": error, "output": self._output}
        return self._event("response.failed", response=self.response)

    def _event(self, kind: str, **fields: object) -> bytes:
        number, self._number = self._number, self._number + 1
        data = _encode({"type": kind, "sequence_number": number, **fields})
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"

    def _text(self, text: str, extra: bytes) -> bytes:
        # once per token: everything but the text, the number and log-probabilities is encoded when the item opens
        self._texts.append(text)
        number, self._number = self._number, self._number + 1
        return self._delta + _encode(text) + extra + b',"sequence_number":%d}\n\n' % number

    def _start_item(self, kind: str, prefix: str) -> None:
        self._kind, self._id, self._texts, self._logprobs = kind, new_id(prefix), [], []

    def _place(self) -> Document:
        return {"item_id": self._id, "output_index": len(self._output)}

    def _open_message(self) -> Iterator[bytes]:
        self._start_item("message", "msg_")
        item = message_item(self._id, [], status="in_progress")
        yield self._event("response.output_item.added", output_index=len(self._output), item=item)
        place = {**self._place(), "content_index": 0}
        yield self._event("response.content_part.added", **place, part=text_part(""))
        self._delta = _delta_head("response.output_text.delta", place)

    def _open_reasoning(self) -> Iterator[bytes]:
        self._start_item("reasoning", "rs_")
        item = reasoning_item(self._id, "", status="in_progress", encrypted=False)
        yield self._event("response.output_item.added", output_index=len(self._output), item=item)
        place = {**self._place(), "summary_index": 0}
        part = {"type": "summary_text", "text": ""}
        yield self._event("response.reasoning_summary_part.added", **place, part=part)
        self._delta = _delta_head("response.reasoning_summary_text.delta", place)

    def _close(self, *, status: str = "completed") -> Iterator[bytes]:
        text, place = "".join(self._texts), self._place()
        if self._kind == "message":
            place["content_index"] = 0
            part = text_part(text, self._logprobs)
            yield self._event("response.output_text.done", **place, text=text, logprobs=part["logprobs"])
            yield self._event("response.content_part.done", **place, part=part)
            yield self._done(message_item(self._id, [part], status=status))
        elif self._kind == "reasoning":
            place["summary_index"] = 0
            yield self._event("response.reasoning_summary_text.done", **place, text=text)
            part = {"type": "summary_text", "text": text}
            yield self._event("response.reasoning_summary_part.done", **place, part=part)
            yield self._done(reasoning_item(self._id, text, status=status, encrypted=self._encrypted))
        self._kind, self._texts = "", []

    def _call(self, call: ToolCall) -> Iterator[bytes]:
        self._id = new_id("fc_")
        arguments = _encode(call.arguments).decode()
        item = call_item(self._id, call, "", status="in_progress")
        yield self._event("response.output_item.added", output_index=len(self._output), item=item)
        place = self._place()
        yield self._event("response.function_call_arguments.delta", **place, delta=arguments)
        yield self._event("response.function_call_arguments.done", **place, name=call.name, arguments=arguments)
        yield self._done(call_item(self._id, call, arguments, status="completed"))

    def _done(self, item: Document) -> bytes:
        event = self._event("response.output_item.done", output_index=len(self._output), item=item)
        self._output.append(item)
        return event


def _delta_head(kind: str, place: Document) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + _encode({"type": kind, **place})[:-1] + b',"delta":'
