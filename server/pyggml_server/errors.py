"""Every exception of the service.

.. code-block:: text

    ServerError
    ├── BadRequestError (ValueError)   a request that cannot be served as it stands
    │   └── CapabilityError            the model cannot do what is asked
    ├── CloudError                     what is asked for is done on somebody else's computers
    ├── InvalidNameError (ValueError)  a model name that breaks the grammar
    ├── ModelNotFoundError             no such model in the store, nor in its sources
    ├── StoreError                     the store's files are damaged or cannot be written
    │   └── DigestMismatchError        content is not what its digest says
    ├── TransferError                  a model could not be fetched
    ├── ServerBusyError                too many requests wait
    ├── ModelLoadError                 a model cannot be loaded
    │   └── ModelMemoryError           there is no room for it
    ├── RunnerDiedError                the process of a model ended
    └── RequestRefusedError            the engine refused a request
        ├── ContextTooLongError        a prompt that may not be cut is too long
        ├── InvalidOptionError (ValueError)   an option is out of its range
        └── InvalidGrammarError (ValueError)  a grammar or a schema cannot be used
"""

__all__ = [
    "BadRequestError",
    "CapabilityError",
    "CloudError",
    "ContextTooLongError",
    "DigestMismatchError",
    "InvalidGrammarError",
    "InvalidNameError",
    "InvalidOptionError",
    "ModelLoadError",
    "ModelMemoryError",
    "ModelNotFoundError",
    "RequestRefusedError",
    "RunnerDiedError",
    "ServerBusyError",
    "ServerError",
    "StoreError",
    "TransferError",
]


class ServerError(Exception):
    """Base of all errors of the service."""


class BadRequestError(ServerError, ValueError):
    """A request that cannot be served as it stands; the message says what is wrong with it."""


class CapabilityError(BadRequestError):
    """The model cannot do what is asked of it, such as calling tools."""


class CloudError(ServerError):
    """What is asked for is done on somebody else's computers, or needs an account there."""


class InvalidNameError(ServerError, ValueError):
    """A model name that breaks the grammar ``[host/][namespace/]model[:tag]``."""


class ModelNotFoundError(ServerError, LookupError):
    """No such model in the store."""


class StoreError(ServerError):
    """A manifest or a blob is damaged, or the store cannot be written."""


class DigestMismatchError(StoreError):
    """The content is not what its digest says."""


class TransferError(ServerError):
    """A model could not be fetched; the message says from where and what to do."""


class ServerBusyError(ServerError):
    """Too many requests wait already. The text is Ollama's: clients look for it."""

    def __init__(self, message: str = "server busy, please try again.  maximum pending requests exceeded") -> None:
        super().__init__(message)


class ModelLoadError(ServerError):
    """A model cannot be loaded; the message says why."""


class ModelMemoryError(ModelLoadError):
    """There is no room for a model; the message says what is needed, what there is, and what can be done."""


class RunnerDiedError(ServerError):
    """The process of a model ended while it was needed.

    Attributes:
        last_words: the end of what it wrote to standard error; may be empty.
    """

    def __init__(self, message: str, *, last_words: str = "") -> None:
        super().__init__(message)
        self.last_words = last_words


class RequestRefusedError(ServerError):
    """The engine refused a request, or failed at it.

    Attributes:
        error: the name of the exception's class in :mod:`pyggml.errors`, or ``internal``.
    """

    def __init__(self, message: str, *, error: str) -> None:
        super().__init__(message)
        self.error = error


class ContextTooLongError(RequestRefusedError):
    """A prompt or a text does not fit into the context, and may not be cut."""


class InvalidOptionError(RequestRefusedError, ValueError):
    """An option of a request is out of its range, or does not go with the model."""


class InvalidGrammarError(RequestRefusedError, ValueError):
    """A grammar or a schema is wrong, not supported or too costly."""
