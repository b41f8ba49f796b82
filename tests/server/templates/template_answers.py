"""Published templates, and answers fed to their parsers."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pyggml_server.templates import Event, PromptRenderer, ToolCall, output_parser
from pyggml_server.templates.jinja import JinjaWriter
from pyggml_server.templates.vocabulary import ModelFacts
from tokenizer.vocabs import VocabsMissing, vocab_folder


def templates_folder() -> Path:
    """Where the published templates are."""
    try:
        return vocab_folder() / "templates"
    except VocabsMissing as error:
        pytest.fail(str(error))


def published(name: str) -> PromptRenderer:
    """The renderer of a published template."""
    source = (templates_folder() / f"{name}.jinja").read_text(encoding="utf-8")
    return PromptRenderer(JinjaWriter(source, bos="<s>", eos="</s>"), ModelFacts(bos="<s>", eos="</s>"))


def pieces_of(text: str) -> Iterator[list[str]]:
    """A text whole, in single characters, and in pieces as tokens have them."""
    yield [text]
    yield list(text)
    yield [text[max(0, i) : i + 7] for i in range(-3, len(text), 7)]


def read_answer(
    renderer: PromptRenderer,
    pieces: Sequence[str],
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    think: bool | str | None = None,
    prompt: str = "",
    cut: bool = False,
) -> list[Event]:
    """The events of an answer."""
    parser = output_parser(renderer, tools=tools, think=think, prompt=prompt)
    return [event for piece in pieces for event in parser.feed(piece)] + parser.finish(cut=cut)


def joined(events: Sequence[Event]) -> list[Any]:
    """Texts of one kind as one, calls as (name, arguments)."""
    found: list[Any] = []
    kinds: list[type] = []
    for event in events:
        if isinstance(event, ToolCall):
            found.append((event.name, dict(event.arguments)))
        elif kinds and kinds[-1] is type(event):
            found[-1] += event.text
            continue
        else:
            found.append(event.text)
        kinds.append(type(event))
    return found
