"""Every exception the library raises.

.. code-block:: text

    PyggmlError
    ├── GGUFError (ValueError)            the file is not what a GGUF file must be
    ├── TokenizerError (ValueError)       the vocabulary cannot be built, or a token id does not exist
    ├── TemplateError (ValueError)        a chat template cannot be parsed or rendered
    ├── BackendError (RuntimeError)       ggml or a device refused
    │   ├── LibraryError                  the native library or a back end cannot be loaded
    │   ├── OutOfMemoryError (MemoryError)  a buffer could not be allocated
    │   └── ComputeError                  a graph failed while it ran
    ├── ShapeError (ValueError)           shapes that ggml would assert on
    ├── DTypeError (TypeError)            types that ggml would assert on
    ├── ClosedError (RuntimeError)        the object was closed
    ├── ModelError (ValueError)           the model file cannot be run
    │   ├── UnsupportedArchitectureError  no ``models/<general.architecture>.py``
    │   └── MissingTensorError            a tensor that the architecture needs is absent
    ├── ParameterError (ValueError)       an option is out of its range
    │   └── GrammarError                  a grammar or a schema is wrong, not supported or too costly
    └── ContextFullError (RuntimeError)   no room is left in the KV cache

The classes are split by what a caller can do about them, not by the module that raises them. Messages name the
thing (file, tensor, option) and, where there is one, the next step.
"""

__all__ = [
    "BackendError",
    "ClosedError",
    "ComputeError",
    "ContextFullError",
    "DTypeError",
    "GGUFError",
    "GrammarError",
    "LibraryError",
    "MissingTensorError",
    "ModelError",
    "OutOfMemoryError",
    "ParameterError",
    "PyggmlError",
    "ShapeError",
    "TemplateError",
    "TokenizerError",
    "UnsupportedArchitectureError",
]


class PyggmlError(Exception):
    """Base of all errors of the library."""


class GGUFError(PyggmlError, ValueError):
    """The file breaks the GGUF format; the message names the file and the field."""


class TokenizerError(PyggmlError, ValueError):
    """The vocabulary cannot be built from this metadata, or a token id is not in it."""


class TemplateError(PyggmlError, ValueError):
    """A chat template cannot be parsed, or stopped with an error of its own while rendering."""


class BackendError(PyggmlError, RuntimeError):
    """ggml or one of its devices refused an operation."""


class LibraryError(BackendError):
    """The native library or its back ends cannot be loaded."""


class OutOfMemoryError(BackendError, MemoryError):
    """A device buffer could not be allocated; the message gives the size and the device."""


class ComputeError(BackendError):
    """A graph failed while it ran, or was aborted."""


class ShapeError(PyggmlError, ValueError):
    """The shapes of the operands do not fit; the message holds all of them, in ggml order."""


class DTypeError(PyggmlError, TypeError):
    """The operation does not exist for these element types."""


class ClosedError(PyggmlError, RuntimeError):
    """The object was used after ``close()``."""


class ModelError(PyggmlError, ValueError):
    """The model file cannot be run."""


class UnsupportedArchitectureError(ModelError):
    """``general.architecture`` names an architecture that is not registered."""


class MissingTensorError(ModelError):
    """A tensor that the architecture needs is absent from the file."""


class ParameterError(PyggmlError, ValueError):
    """An option is out of its range; the message names the option and the range."""


class GrammarError(ParameterError):
    """A grammar, schema or regular expression is wrong, not supported, or costs more than its limits allow.

    Attributes:
        line: where, counted from 1; None when the reason has no place.
        column: likewise.
    """

    def __init__(self, message: str, *, line: int | None = None, column: int | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class ContextFullError(PyggmlError, RuntimeError):
    """The KV cache has no room for another token."""
