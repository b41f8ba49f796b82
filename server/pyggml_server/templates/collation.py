"""Changes of conversations that prompts need, whatever the template."""

import re
from collections.abc import Sequence
from dataclasses import replace

from pyggml_server.templates.messages import Message

__all__ = ["collect_system", "merge_neighbours", "strip_thoughts"]


def merge_neighbours(messages: Sequence[Message]) -> list[Message]:
    """Consecutive messages of one role as one, their texts joined by a blank line; results of tools stay apart."""
    found: list[Message] = []
    for message in messages:
        last = found[-1] if found else None
        if last is None or last.role != message.role or message.role == "tool" or last.tool_calls:
            found.append(message)
            continue
        found[-1] = replace(
            last,
            content="\n\n".join(text for text in (last.content, message.content) if text),
            thinking="\n\n".join(text for text in (last.thinking, message.thinking) if text),
            images=[*last.images, *message.images],
            tool_calls=message.tool_calls,
        )
    return found


def collect_system(messages: Sequence[Message]) -> str:
    """The texts of all system messages, with blank lines between them."""
    return "\n\n".join(message.content for message in messages if message.role == "system")


def strip_thoughts(messages: Sequence[Message], tags: tuple[str, str] | None) -> list[Message]:
    """Leave the thoughts out of what the assistant said before the last message of the user.

    Models were trained on conversations without their earlier thoughts. Thoughts in the field ``thinking`` are left to
    the template; these are the ones that a client sent back inside the content.

    Args:
        messages: The conversation.
        tags: What thoughts stand between; None: the model has no thoughts.
    """
    last = max((i for i, message in enumerate(messages) if message.role == "user"), default=-1)
    if tags is None or last < 0:
        return list(messages)
    thoughts = re.compile(f"^\\s*{re.escape(tags[0])}.*?{re.escape(tags[1])}\\s*", re.DOTALL)
    return [
        replace(message, content=thoughts.sub("", message.content, count=1))
        if i < last and message.role == "assistant" and tags[1] in message.content
        else message
        for i, message in enumerate(messages)
    ]
