"""How the families mark calls of tools in their answers."""

from dataclasses import dataclass
from typing import Final

from pyggml_server.templates.probing import CallShape

__all__ = ["CallFormat", "find_format"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFormat:
    """The marks around calls.

    Attributes:
        opens: Tags that begin a call.
        closes: The tags that end it, one per opening tag; empty: it ends with its JSON value.
        ignored: Tags that stand around calls or answers and mean nothing to a client.
        bare: A JSON object at the beginning of the answer is a call as well, if it names a tool.
    """

    opens: tuple[str, ...] = ()
    closes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    bare: bool = False


_KNOWN: Final = (
    CallFormat(
        opens=("<｜tool▁call▁begin｜>",),
        closes=("<｜tool▁call▁end｜>",),
        ignored=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    ),
    CallFormat(
        opens=("<|tool_call_begin|>",),
        closes=("<|tool_call_end|>",),
        ignored=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
    ),
    CallFormat(
        opens=("<|START_ACTION|>",),
        closes=("<|END_ACTION|>",),
        ignored=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
    ),
    CallFormat(opens=("<|tool_call_start|>",), closes=("<|tool_call_end|>",)),
    CallFormat(opens=("<start_function_call>",), closes=("<end_function_call>",)),
    CallFormat(opens=("<|tool_call>",), closes=("<tool_call|>",)),
    CallFormat(opens=("[TOOL_CALLS]",), closes=("",)),
    CallFormat(opens=("<tool_call>",), closes=("</tool_call>",)),
    CallFormat(opens=("<|tool_call|>",), closes=("",)),
    CallFormat(opens=("Action:\n```json", "Action: ```json"), closes=("```", "```")),
    CallFormat(opens=("<|python_tag|>",), closes=("",), bare=True),
    CallFormat(opens=("<toolcall>",), closes=("</toolcall>",)),
)
"""The more particular before those whose tags they share."""


def find_format(source: str, shape: CallShape | None) -> CallFormat:
    """The format of a model's calls.

    Args:
        source: Its template.
        shape: How the template writes calls; None: it does not.
    """
    if shape is not None and shape.tag:
        same = (known for known in _KNOWN if known.opens[0] in shape.begin)
        return next(same, None) or CallFormat(opens=(shape.tag,), closes=(shape.closing_tag,))
    for known in _KNOWN:
        if known.opens[0] in source or known.opens[0].replace("\n", "\\n") in source:
            return known
    return CallFormat(bare=True)
