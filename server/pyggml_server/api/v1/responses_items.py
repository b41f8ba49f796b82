"""Items of a response's output, and the response around them."""

import time
from typing import Any

import msgspec

from pyggml_server.api.tasks import Final as FinalItem
from pyggml_server.api.v1.answers import Counts
from pyggml_server.api.v1.common_types import LogProbItem
from pyggml_server.api.v1.ids import Stamp
from pyggml_server.api.v1.responses_types import ResponsesRequest, usage_of_response
from pyggml_server.templates import ToolCall

__all__ = ["Document", "call_item", "end_of_response", "message_item", "new_response", "reasoning_item", "text_part"]

Document = dict[str, Any]


def new_response(asked: ResponsesRequest, stamp: Stamp) -> Document:
    """A response that has just begun. What the request says is repeated, with the defaults that hold."""
    reasoning = asked.reasoning
    return {
        "id": stamp.id,
        "object": "response",
        "created_at": stamp.created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "metadata": asked.metadata or {},
        "model": stamp.model,
        "output": [],
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {
            "effort": reasoning.effort if reasoning else None,
            "summary": reasoning.summary if reasoning else None,
        },
        "store": False,
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "text": {"format": (asked.text.format if asked.text else None) or {"type": "text"}},
        "tool_choice": asked.tool_choice or "auto",
        "tools": asked.tools or [],
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        "truncation": asked.truncation or "auto",
        "usage": None,
        "user": asked.user,
    }


def end_of_response(response: Document, output: list[Document], final: FinalItem, *, n_reasoning: int) -> Document:
    """The response when all is said; cut off by a limit, it is incomplete."""
    counts = Counts()
    counts.add(final)
    cut = final.reason == "length"
    ended: Document = {
        **response,
        "status": "incomplete" if cut else "completed",
        "completed_at": None if cut else int(time.time()),
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": output,
        "usage": usage_of_response(
            prompt=counts.prompt, cached=counts.cached, answer=counts.answer, reasoning=n_reasoning
        ),
    }
    if counts.lost:
        ended["truncated"] = counts.lost
    return ended


def text_part(text: str, logprobs: list[LogProbItem] | None = None) -> Document:
    """The only part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": msgspec.to_builtins(logprobs or [])}


def message_item(item_id: str, parts: list[Document], *, status: str) -> Document:
    """What the model says."""
    return {"type": "message", "id": item_id, "status": status, "role": "assistant", "content": parts}


def reasoning_item(item_id: str, text: str, *, status: str, encrypted: bool) -> Document:
    """What the model thinks. ``encrypted_content``, where it is asked for, is the plain text, as in Ollama."""
    summary = [{"type": "summary_text", "text": text}] if text else []
    item: Document = {"type": "reasoning", "id": item_id, "status": status, "summary": summary}
    if encrypted:
        item["encrypted_content"] = text
    return item


def call_item(item_id: str, call: ToolCall, arguments: str, *, status: str) -> Document:
    """A function that the model calls."""
    return {
        "type": "function_call",
        "id": item_id,
        "status": status,
        "call_id": call.id,
        "name": call.name,
        "arguments": arguments,
    }
