"""Prompts and answers: templates that write conversations, parsers that read what models make of them."""

from pyggml_server.templates.events import Content, Event, Thinking
from pyggml_server.templates.fitting import fit_messages
from pyggml_server.templates.forcing import tool_choice_grammar
from pyggml_server.templates.go_template import GoTemplate
from pyggml_server.templates.messages import FittedPrompt, Message, RenderedPrompt, ToolCall
from pyggml_server.templates.parser import OutputParser, output_parser
from pyggml_server.templates.prelude import Prelude, answer_opening, open_prelude
from pyggml_server.templates.renderer import PromptRenderer
from pyggml_server.templates.schemas import close_schema

__all__ = [
    "Content",
    "Event",
    "FittedPrompt",
    "GoTemplate",
    "Message",
    "OutputParser",
    "Prelude",
    "PromptRenderer",
    "RenderedPrompt",
    "Thinking",
    "ToolCall",
    "answer_opening",
    "close_schema",
    "fit_messages",
    "open_prelude",
    "output_parser",
    "tool_choice_grammar",
]
