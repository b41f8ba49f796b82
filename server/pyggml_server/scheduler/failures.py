"""Exceptions of the runner become exceptions of the service."""

from types import MappingProxyType
from typing import Final, NoReturn

from pyggml_server.errors import (
    ContextTooLongError,
    InvalidGrammarError,
    InvalidOptionError,
    ModelLoadError,
    ModelMemoryError,
    RequestRefusedError,
)
from pyggml_server.protocol import Failed

__all__ = ["raise_failure"]

_CLASSES: Final = MappingProxyType(
    {
        "ContextFullError": ContextTooLongError,
        "GrammarError": InvalidGrammarError,
        "ModelError": InvalidOptionError,  # what this model cannot do
        "ParameterError": InvalidOptionError,
    }
)


def raise_failure(message: Failed, *, loading: bool = False, path: str = "") -> NoReturn:
    """Raise what a runner reports.

    Args:
        message: The report.
        loading: It is about loading the model.
        path: The model's file. Where errors of requests begin with it, it is left out: clients know the model by its
            name, and nothing of the server's folders.

    Raises:
        ModelLoadError: always, if ``loading``; :class:`ModelMemoryError` where memory was short.
        RequestRefusedError: otherwise; a subclass where the request can be mended.
    """
    if loading:
        kind = ModelMemoryError if message.error == "OutOfMemoryError" else ModelLoadError
        raise kind(message.message)
    text = message.message.removeprefix(f"{path}: ") if path else message.message
    raise _CLASSES.get(message.error, RequestRefusedError)(text, error=message.error)
