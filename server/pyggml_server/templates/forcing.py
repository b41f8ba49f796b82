"""Grammars that make a model call tools."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pyggml_server.protocol import GrammarText
from pyggml_server.templates.renderer import PromptRenderer

__all__ = ["tool_choice_grammar"]


def tool_choice_grammar(
    renderer: PromptRenderer, tools: Sequence[Mapping[str, Any]], choice: str | Mapping[str, Any], *, parallel: bool
) -> GrammarText:
    """The grammar of answers that call at least one tool, as the model's family writes calls.

    Args:
        renderer: Of the model.
        tools: The tools.
        choice: ``"required"``, or ``{"name": …}``.
        parallel: Several calls are allowed.
    """
    wanted = choice["name"] if isinstance(choice, Mapping) else None
    options = []
    for tool in tools:
        function = tool["function"]
        if wanted in (None, function["name"]):
            parameters = function.get("parameters") or {"type": "object"}
            options.append(
                {
                    "type": "object",
                    "properties": {"name": {"const": function["name"]}, "arguments": parameters},
                    "required": ["name", "arguments"],
                    "additionalProperties": False,
                }
            )
    return GrammarText(kind="json_schema", text=json.dumps({"anyOf": options}), lenient=True)
