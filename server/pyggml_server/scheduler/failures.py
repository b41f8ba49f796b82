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


def raise_failure(message: Failed, *, loading: bool = False) -> NoReturn:
    """Raise what a runner reports.

    Raises:
        ModelLoadError: always, if ``loading``; :class:`ModelMemoryError` where memory was short.
        RequestRefusedError: otherwise; a subclass where the request can be mended.
    """
    if loading:
        kind = ModelMemoryError if message.error == "OutOfMemoryError" else ModelLoadError
        raise kind(message.message)
    raise _CLASSES.get(message.error, RequestRefusedError)(message.message, error=message.error)
