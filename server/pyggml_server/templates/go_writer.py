"""Prompts by a Go template, as Ollama executes it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from pyggml_server.templates.collation import collect_system, merge_neighbours
from pyggml_server.templates.go_template import GoTemplate
from pyggml_server.templates.go_values import ToolList, message_value
from pyggml_server.templates.messages import Message

__all__ = ["GoWriter"]


class GoWriter:
    """Writes conversations by a Go template.

    A template that uses ``.Messages`` sees the whole conversation. An older one, with ``.System``, ``.Prompt`` and
    ``.Response``, is executed once per round; in the last round it ends where the answer goes.

    Args:
        source: The template.
        clock: The time for templates that print the date.

    Raises:
        TemplateError: it cannot be parsed, or is too large.
    """

    def __init__(self, source: str, *, clock: Callable[[], datetime] = datetime.now) -> None:
        self.source: Final = source
        template = GoTemplate(source, clock=clock)
        self.names: Final = template.tree.names
        """What the template uses, in lower case."""
        self.think_tags: Final = template.tree.think_tags
        """The texts around thoughts; None: it prints none."""
        if "messages" not in self.names and "response" not in self.names:
            source += "{{ .Response }}"
            template = GoTemplate(source, clock=clock)
        self._template: Final = template
        self._open: Final = template if template.tree.cut is None else _cut(source, template.tree.cut, clock)

    def write(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]],
        think: bool | str | None,
        add_generation_prompt: bool,
    ) -> str:
        """The prompt of a conversation; it always ends where an answer goes, which such templates cannot leave out.

        Raises:
            TemplateError: the template fails.
        """
        common = {**_thinking(think), "Tools": ToolList(tools) if tools else [], "Suffix": ""}
        collated = merge_neighbours(messages)
        if "messages" in self.names:
            return self._template.render(
                {
                    **common,
                    "System": collect_system(messages),
                    "Messages": [message_value(message) for message in collated],
                    "Prompt": "",
                    "Response": "",
                }
            )
        rounds = list(_rounds(collated))
        closed = [self._template.render({**common, **values}) for values in rounds[:-1]]
        return "".join([*closed, self._open.render({**common, **rounds[-1]})])

    def fill(self, prompt: str, suffix: str) -> str:
        """The prompt to fill in the middle.

        Raises:
            TemplateError: the template fails.
        """
        values = {"Prompt": prompt, "Suffix": suffix, "System": "", "Messages": [], "Tools": [], **_thinking(None)}
        return self._open.render({**values, "Response": ""})


def _cut(source: str, place: tuple[int, int], clock: Callable[[], datetime]) -> GoTemplate:
    """The template up to the answer, its blocks closed."""
    end, depth = place
    head = source.encode()[:end].decode("utf-8", "ignore")
    # definitions that stand behind the answer are still called before it
    definitions = "".join(_definitions(source, end))
    return GoTemplate(head + "{{ end }}" * depth + definitions, clock=clock)


def _definitions(source: str, start: int) -> Iterator[str]:
    rest = source.encode()[start:].decode("utf-8", "ignore")
    at = rest.find("{{ define")
    at = at if at >= 0 else rest.find("{{define")
    at = at if at >= 0 else rest.find("{{- define")
    if at >= 0:
        yield rest[at:]


def _thinking(think: bool | str | None) -> dict[str, object]:
    level = think if isinstance(think, str) else ""
    return {"Think": bool(think), "ThinkLevel": level, "IsThinkSet": think is not None}


def _rounds(messages: Sequence[Message]) -> Iterator[dict[str, str]]:
    """Messages folded into system, prompt and response; the last one may lack parts."""
    current = {"System": "", "Prompt": "", "Response": ""}
    for message in messages:
        if message.role == "system":
            if current["Prompt"] or current["Response"]:
                yield current
                current = {"System": "", "Prompt": "", "Response": ""}
            current["System"] = message.content
        elif message.role == "user":
            if current["Response"]:
                yield current
                current = {"System": "", "Prompt": "", "Response": ""}
            current["Prompt"] = message.content
        elif message.role == "assistant":
            current["Response"] = message.content
    yield current
