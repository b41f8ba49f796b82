"""What writes a conversation as text."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from pyggml_server.templates.messages import Message

__all__ = ["PlainWriter", "Writer"]


class Writer(Protocol):
    """A template of one of the languages."""

    @property
    def source(self) -> str:
        """The template's text."""

    def write(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]],
        think: bool | str | None,
        add_generation_prompt: bool,
    ) -> str:
        """The prompt of a conversation.

        Raises:
            TemplateError: the template refuses it, or goes beyond a limit.
        """


class PlainWriter:
    """For models without any template: the texts, with blank lines between them."""

    source: Final = ""

    def write(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]],
        think: bool | str | None,
        add_generation_prompt: bool,
    ) -> str:
        """See :class:`Writer`; tools and thoughts cannot be told."""
        return "\n\n".join(message.content for message in messages if message.content)
