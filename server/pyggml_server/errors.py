"""Every exception of the service.

.. code-block:: text

    ServerError
    ├── BadRequestError (ValueError)   a request that cannot be served as it stands
    │   └── CapabilityError            the model cannot do what is asked
    ├── InvalidNameError (ValueError)  a model name that breaks the grammar
    ├── ModelNotFoundError             no such model in the store, nor in its sources
    ├── StoreError                     the store's files are damaged or cannot be written
    │   └── DigestMismatchError        content is not what its digest says
    └── TransferError                  a model could not be fetched
"""

__all__ = [
    "BadRequestError",
    "CapabilityError",
    "DigestMismatchError",
    "InvalidNameError",
    "ModelNotFoundError",
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
