"""Exceptions as HTTP: the one table from class to status, and Ollama's texts."""

import logging
from typing import Final

from pyggml.errors import (
    ContextFullError,
    GGUFError,
    OutOfMemoryError,
    ParameterError,
    PyggmlError,
    TemplateError,
    TokenizerError,
)
from pyggml_server import errors as service
from pyggml_server.config import ConfigError

__all__ = ["STATUS", "log_failure", "message_of", "status_of"]

_log: Final = logging.getLogger(__name__)

STATUS: Final[tuple[tuple[type[Exception], int], ...]] = (
    (service.BadRequestError, 400),
    (service.InvalidNameError, 400),
    (service.ContextTooLongError, 400),
    (service.InvalidGrammarError, 400),
    (service.InvalidOptionError, 400),
    (service.DigestMismatchError, 400),
    (service.CloudError, 403),
    (service.ModelNotFoundError, 404),
    (service.ServerBusyError, 503),
    (ConfigError, 500),
    (service.ServerError, 500),
    (ParameterError, 400),
    (TemplateError, 400),
    (TokenizerError, 400),
    (ContextFullError, 400),
    (GGUFError, 400),
    (OutOfMemoryError, 500),
    (PyggmlError, 500),
)
"""The first class that fits decides. What is not in it is a fault of the server: 500, and a traceback in the log."""


def status_of(error: Exception) -> int:
    """The status that answers an exception."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def log_failure(error: Exception) -> None:
    """A line in the log for what is answered with 500; with a traceback where it is a fault of the server's code."""
    expected = isinstance(error, service.ServerError | PyggmlError)
    _log.error("a request failed: %s", error, exc_info=None if expected else error)


def message_of(error: Exception) -> str:
    """The text for the client; faults of the server tell no more than that there was one."""
    if isinstance(error, service.ServerError | PyggmlError):
        return str(error)
    return "internal server error: see the log"
