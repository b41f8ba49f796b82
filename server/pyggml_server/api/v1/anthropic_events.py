"""Events of ``/v1/messages`` in the order of Anthropic's reference; without a stream, the same blocks."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from pyggml_server.api.tasks import Chunk
from pyggml_server.api.tasks import Final as FinalItem
from pyggml_server.api.v1.anthropic_types import Reply, TokenCounts
from pyggml_server.templates import ToolCall

__all__ = ["MessageEvents"]

_encode: Final = msgspec.json.Encoder().encode


class MessageEvents:
    """Writes the events of one message, and remembers its blocks.

    Args:
        message_id: Of the message.
        model: As the request names it.
        n_prompt: Tokens of the prompt; how many of them were remembered, only the end tells.
    """

    def __init__(self, message_id: str, model: str, *, n_prompt: int) -> None:
        self.reply: Final = Reply(message_id, model, [], None, None, TokenCounts(n_prompt, 0))
        self._kind = ""  # of the block that is being written: text, thinking or none
        self._texts: list[str] = []
        self._delta = b""
        self._called = False

    def begin(self) -> bytes:
        """The first event."""
        return _event("message_start", message=self.reply)

    def write(self, chunk: Chunk) -> Iterator[bytes]:
        """Events for what came."""
        if chunk.thinking:
            if self._kind != "thinking":
                yield from self._close()
                yield self._open("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            yield self._text(chunk.thinking)
        if chunk.content:
            if self._kind != "text":
                yield from self._close()
                yield self._open("text", {"type": "text", "text": ""})
            yield self._text(chunk.content)
        for call in chunk.tool_calls:
            yield from self._close()
            yield from self._call(call)

    def finish(self, final: FinalItem) -> Iterator[bytes]:
        """The last events; afterwards :attr:`reply` is the whole message."""
        yield from self._close()
        self.reply.stop_reason = self._stop_reason(final)
        if self.reply.stop_reason == "stop_sequence":
            self.reply.stop_sequence = final.stop_string
        self.reply.usage = TokenCounts(
            final.prompt_tokens - final.cached_tokens, final.eval_tokens, final.cached_tokens
        )
        delta = {"stop_reason": self.reply.stop_reason, "stop_sequence": self.reply.stop_sequence}
        yield _event("message_delta", delta=delta, usage=self.reply.usage)
        yield _event("message_stop")

    def _stop_reason(self, final: FinalItem) -> str:
        if final.reason == "length":
            return "max_tokens"
        if self._called:
            return "tool_use"
        return "end_turn" if final.stop_string is None else "stop_sequence"

    def _open(self, kind: str, block: dict[str, Any]) -> bytes:
        index = len(self.reply.content)
        self._kind, self._texts = kind, []
        head = _event("content_block_delta", index=index, delta={"type": f"{kind}_delta"})
        # …"delta":{"type":"text_delta"}} and two line ends: the text goes before the last two braces
        self._delta = head[:-4] + b',"' + kind.encode() + b'":'
        return _event("content_block_start", index=index, content_block=block)

    def _text(self, text: str) -> bytes:
        self._texts.append(text)
        return self._delta + _encode(text) + b"}}\n\n"

    def _close(self) -> Iterator[bytes]:
        if self._kind:
            text = "".join(self._texts)
            block = {"type": self._kind, self._kind: text}
            if self._kind == "thinking":
                block["signature"] = ""
            yield _event("content_block_stop", index=len(self.reply.content))
            self.reply.content.append(block)
        self._kind = ""

    def _call(self, call: ToolCall) -> Iterator[bytes]:
        index, self._called = len(self.reply.content), True
        block = {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
        yield _event("content_block_start", index=index, content_block={**block, "input": {}})
        arguments = _encode(call.arguments).decode()
        yield _event("content_block_delta", index=index, delta={"type": "input_json_delta", "partial_json": arguments})
        yield _event("content_block_stop", index=index)
        self.reply.content.append(block)


def _event(kind: str, **fields: object) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + _encode({"type": kind, **fields}) + b"\n\n"
