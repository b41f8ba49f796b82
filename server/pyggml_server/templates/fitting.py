"""Leaves old messages out of conversations that do not fit into the context."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyggml_server.templates.messages import FittedPrompt, Message, RenderedPrompt
from pyggml_server.templates.renderer import PromptRenderer

__all__ = ["fit_messages"]


def fit_messages(
    renderer: PromptRenderer,
    messages: Sequence[Message],
    *,
    count: Callable[[str], int],
    n_ctx: int,
    tools: Sequence[Mapping[str, Any]] = (),
    think: bool | str | None = None,
    template: str | None = None,
) -> FittedPrompt:
    """The prompt of as much of a conversation as fits.

    System messages always stay, and so does the last message of the user with all that follows it, even if that is
    too long. From the rest the oldest turns are left out, whole: a message of the user with the answers, calls and
    results up to the next one.

    Args:
        renderer: Writes the prompts.
        messages: The conversation.
        count: Tokens of a text.
        n_ctx: Tokens that the prompt may have.
        tools: See :meth:`PromptRenderer.render_chat`, as for the following.
        think: See there.
        template: See there.

    Raises:
        TemplateError: the template refuses the conversation.
    """
    starts = _turns(messages)

    def attempt(skipped: int) -> tuple[RenderedPrompt, int, int]:
        kept = _without(messages, starts[skipped])
        prompt = renderer.render_chat(kept, tools=tools, think=think, template=template)
        return prompt, len(messages) - len(kept), count(prompt.text)

    best = attempt(0)
    if best[2] <= n_ctx or len(starts) == 1:
        return FittedPrompt(best[0], best[1], best[2])
    # the length falls with every turn that goes, so bisection finds the first that fits
    low, high, best = 0, len(starts) - 1, attempt(len(starts) - 1)
    while best[2] <= n_ctx and high - low > 1:
        middle = (low + high) // 2
        found = attempt(middle)
        if found[2] <= n_ctx:
            high, best = middle, found
        else:
            low = middle
    return FittedPrompt(best[0], best[1], best[2])


def _turns(messages: Sequence[Message]) -> list[int]:
    """Where the conversation may begin: at its beginning, and at every message of the user."""
    users = [i for i, message in enumerate(messages) if message.role == "user"]
    first = next((i for i, message in enumerate(messages) if message.role != "system"), 0)
    return [first, *(i for i in users if i > first)]


def _without(messages: Sequence[Message], start: int) -> list[Message]:
    """The system messages of all the conversation, and everything from ``start``."""
    return [message for i, message in enumerate(messages) if i >= start or message.role == "system"]
