"""Prompts of one model, whatever its template is written in."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pyggml.errors import TemplateError
from pyggml_server.store import StoredModel
from pyggml_server.templates.collation import strip_thoughts
from pyggml_server.templates.jinja import JinjaWriter
from pyggml_server.templates.messages import Message, RenderedPrompt
from pyggml_server.templates.thoughts import THINK_TAGS
from pyggml_server.templates.vocabulary import ModelFacts, read_facts
from pyggml_server.templates.writers import PlainWriter, Writer

__all__ = ["PromptRenderer"]


class PromptRenderer:
    """Writes prompts for one model. Safe to share between threads.

    Args:
        writer: The template.
        facts: Of the model.
    """

    def __init__(self, writer: Writer, facts: ModelFacts) -> None:
        self.writer: Final = writer
        self.facts: Final = facts
        self.think_tags: Final = next((tags for tags in THINK_TAGS if tags[1] in writer.source), None)
        """What thoughts stand between in answers; None: the model does not think, or not between tags."""
        self.sees_special: Final = False
        """The parser must see control tokens of answers."""
        self.capabilities: Final = self._find_capabilities()
        """By Ollama's names."""

    @classmethod
    def for_model(cls, model: StoredModel) -> "PromptRenderer":
        """The renderer of a stored model."""
        facts = read_facts(model)
        if facts.chat_template is not None:
            return cls(JinjaWriter(facts.chat_template, bos=facts.bos, eos=facts.eos), facts)
        return cls(PlainWriter(), facts)

    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | str | None = None,
        add_generation_prompt: bool = True,
        template: str | None = None,
    ) -> RenderedPrompt:
        """The prompt of a conversation."""
        text = self.writer.write(
            strip_thoughts(messages, self.think_tags),
            tools=tools,
            think=think,
            add_generation_prompt=add_generation_prompt,
        )
        return self._prompt(text, sum(len(message.images) for message in messages))

    def render_generate(
        self,
        *,
        prompt: str,
        suffix: str = "",
        system: str | None = None,
        images: int = 0,
        template: str | None = None,
        think: bool | str | None = None,
        context_text: str = "",
    ) -> RenderedPrompt:
        """The prompt for a text of the user."""
        if suffix:
            if self.facts.fim is None:
                raise TemplateError("the model cannot fill in the middle")
            before, after, middle = self.facts.fim
            return self._prompt(f"{before}{prompt}{after}{suffix}{middle}", images)
        messages = [Message(role="system", content=system)] if system else []
        messages.append(Message(role="user", content=prompt))
        rendered = self.render_chat(messages, think=think, template=template)
        return self._prompt(context_text + rendered.text, images)

    def _prompt(self, text: str, images: int) -> RenderedPrompt:
        return RenderedPrompt(text, bool(self.facts.bos) and text.startswith(self.facts.bos), images)

    def _find_capabilities(self) -> frozenset[str]:
        if self.facts.embeds:
            return frozenset({"embedding"})
        found = {"completion"}
        if "tools" in self.writer.source:
            found.add("tools")
        if self.think_tags is not None:
            found.add("thinking")
        if self.facts.fim is not None:
            found.add("insert")
        if self.facts.sees:
            found.add("vision")
        return frozenset(found)
