"""Prompts of one model, whatever its template is written in."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any, Final

from pyggml.errors import TemplateError
from pyggml_server.store import StoredModel
from pyggml_server.templates.capabilities import find_think_tags, template_capabilities
from pyggml_server.templates.channels import ChannelFormat, find_channels
from pyggml_server.templates.choice import choose_writers
from pyggml_server.templates.collation import strip_thoughts
from pyggml_server.templates.formats import CallFormat, find_format, spell_calls
from pyggml_server.templates.go_writer import GoWriter
from pyggml_server.templates.jinja import JinjaWriter
from pyggml_server.templates.messages import Message, RenderedPrompt
from pyggml_server.templates.probing import CallShape, probe_calls, written_call
from pyggml_server.templates.vocabulary import ModelFacts, read_facts
from pyggml_server.templates.writers import Writer

__all__ = ["PromptRenderer"]


class PromptRenderer:
    """Writes prompts for one model. Safe to share between threads.

    Args:
        writer: The template of conversations.
        facts: Of the model.
        go: The Go template that came with the model, for filling in the middle; None: there is none.
    """

    def __init__(self, writer: Writer, facts: ModelFacts, *, go: GoWriter | None = None) -> None:
        self.writer: Final = writer
        self._probe: Final[Writer] = writer.for_probes() if isinstance(writer, JinjaWriter) else writer
        self.facts: Final = facts
        self._go: Final = go
        self.channels: Final[ChannelFormat | None] = find_channels(writer.source)
        """Answers consist of messages with headers (gpt-oss); None: they do not."""
        self.think_tags: Final = find_think_tags(self._probe)
        """What thoughts stand between in answers; None: the model does not think, or not between tags."""
        self.capabilities: Final = self._find_capabilities()
        """By Ollama's names."""

    @classmethod
    def for_model(cls, model: StoredModel) -> "PromptRenderer":
        """The renderer of a stored model: by its Go template, the Jinja template of its weights' file, the template of
        the family that this one belongs to, or none, in this order (see :func:`choose_writers`).

        Raises:
            GGUFError: the file of the weights is damaged.
        """
        facts = read_facts(model)
        writer, go = choose_writers(facts, model.template, label=model.name.display)
        return cls(writer, facts, go=go)

    @cached_property
    def call_shape(self) -> CallShape | None:
        """How the template writes calls; None: not, or not with arguments as JSON."""
        return probe_calls(self._probe)

    @cached_property
    def call_format(self) -> CallFormat:
        """The marks around calls in answers."""
        found = find_format(self._probe, self.call_shape, self.think_tags, self.facts.controls)
        # a runner may leave control tokens out of the text
        return replace(found, bare=True) if any(tag in self.facts.controls for tag in found.opens) else found

    @cached_property
    def _writes_calls(self) -> bool:
        """Whether the template writes the calls of earlier answers, or knows nothing of tools."""
        return "tools" not in self.capabilities or written_call(self._probe) is not None

    @cached_property
    def sees_special(self) -> bool:
        """The parser needs the texts of control tokens in answers: the model marks thoughts or calls with them."""
        format = self.call_format
        tags = {*format.opens, *format.closes, *format.wraps, *(self.think_tags or ())}
        return self.channels is not None or any(control in tag for tag in tags for control in self.facts.controls)

    @property
    def marks_answers(self) -> bool:
        """Plain answers have marks of their own, which are not for the reader."""
        return self.channels is not None or bool(self.call_format.wraps)

    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | str | None = None,
        add_generation_prompt: bool = True,
        template: str | None = None,
    ) -> RenderedPrompt:
        """The prompt of a conversation.

        Args:
            messages: The conversation. Thoughts inside the content of earlier answers are left out.
            tools: Tools to tell the model of, as in the API.
            think: Whether, or how much, to think; None: as the template has it.
            add_generation_prompt: End where the answer begins (Go templates always do).
            template: A Go template instead of the model's.

        Raises:
            TemplateError: the template refuses the conversation or is wrong.
        """
        writer = self.writer if template is None else _compile(template)
        messages = strip_thoughts(messages, self.think_tags)
        if template is None and any(message.tool_calls for message in messages) and not self._writes_calls:
            messages = spell_calls(messages, self.call_format)
        text = writer.write(
            messages,
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
        """The prompt for a text of the user.

        Args:
            prompt: The text.
            suffix: What the answer must lead to; a prompt without text cannot have one.
            system: System message.
            images: Images that belong to the text.
            template: A Go template instead of the model's.
            think: See :meth:`render_chat`.
            context_text: The conversation so far, as text; the prompt is appended to it.

        Raises:
            TemplateError: the template refuses the text or is wrong, or the model cannot fill in the middle.
        """
        if prompt and suffix:
            return self._prompt(self._fill(prompt, suffix, template), images)
        messages = [Message(role="system", content=system)] if system else []
        messages.append(Message(role="user", content=prompt, images=(None,) * images))
        rendered = self.render_chat(messages, think=think, template=template)
        return self._prompt(context_text + rendered.text, images)

    def _fill(self, prompt: str, suffix: str, template: str | None) -> str:
        go = self._go if template is None else _compile(template)
        if go is not None and "suffix" in go.names:
            return go.fill(prompt, suffix)
        if self.facts.fim is None or template is not None:
            raise TemplateError("the template knows no suffix: the model cannot fill in the middle")
        before, after, middle = self.facts.fim
        return f"{before}{prompt}{after}{suffix}{middle}"

    def _prompt(self, text: str, images: int) -> RenderedPrompt:
        return RenderedPrompt(text, bool(self.facts.bos) and text.startswith(self.facts.bos), images)

    def _find_capabilities(self) -> frozenset[str]:
        if self.facts.embeds:
            return frozenset({"embedding"})
        found = {"completion", *template_capabilities(self._probe)}
        if self.facts.fim is not None or (self._go is not None and "suffix" in self._go.names):
            found.add("insert")
        if self.facts.sees:
            found.add("vision")
        return frozenset(found)


@lru_cache(maxsize=64)
def _compile(template: str) -> GoWriter:
    """Templates of requests; the same one usually comes again.

    Raises:
        TemplateError: it is wrong.
    """
    return GoWriter(template)
