"""Fields that cannot act here are refused by name: a client that sends one would otherwise believe it did."""

from typing import Any, Final

import msgspec

from pyggml_server.api.v1.errors import FieldError

__all__ = ["refuse"]

_STATELESS: Final = "this server keeps no conversations: send them whole"
# field: (values that say nothing, why others are refused)
_REASONS: Final[dict[str, tuple[tuple[Any, ...], str]]] = {
    "audio": ((None,), "no model here speaks"),
    "background": ((None, False), "answers are given on the connection that asks for them"),
    "best_of": ((None, 1), "use n and choose yourself"),
    "container": ((None,), "no code runs here"),
    "context_management": ((None, []), "use truncate and shift"),
    "conversation": ((None,), _STATELESS),
    "function_call": ((None,), "use tool_choice"),
    "functions": ((None, []), "use tools"),
    "max_tool_calls": ((None,), "no tool runs here; the caller runs them and counts"),
    "mcp_servers": ((None, []), "no tool runs here; the caller runs them"),
    "modalities": ((None, ["text"]), "no model here answers in anything but text"),
    "prediction": ((None,), "no predicted output is verified"),
    "previous_response_id": ((None,), _STATELESS),
    "prompt": ((None,), "no prompt is stored here; use instructions and input"),
    "store": ((None, False), "nothing is stored here; leave it out, or say false"),
    "web_search_options": ((None,), "no tool runs here"),
}


def refuse(request: msgspec.Struct, *fields: str) -> None:
    """Look whether any of ``fields`` asks for something.

    Raises:
        FieldError: one does; the message says why it cannot act.
    """
    for name in fields:
        silent, reason = _REASONS[name]
        if getattr(request, name) not in silent:
            raise FieldError(f"{name} is not supported: {reason}", param=name)
