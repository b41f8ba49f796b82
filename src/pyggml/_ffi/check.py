"""C results become exceptions here and nowhere else."""

from typing import Any

from pyggml.errors import ComputeError, OutOfMemoryError

from .loader import ffi, lib

__all__ = ["check_status", "not_null"]


def not_null(pointer: Any, what: str) -> Any:
    """Return ``pointer``; NULL raises :class:`OutOfMemoryError` saying ``what`` could not be had."""
    if pointer == ffi.NULL:
        raise OutOfMemoryError(f"{what}: ggml returned NULL (out of memory, or the device refused)")
    return pointer


def check_status(status: int, what: str) -> None:
    """Raise for any ``enum ggml_status`` but success.

    Raises:
        OutOfMemoryError: a buffer could not be allocated.
        ComputeError: the graph failed, or its abort callback stopped it.
    """
    if status == lib.GGML_STATUS_SUCCESS:
        return
    name = ffi.string(lib.ggml_status_to_string(status)).decode()
    if status == lib.GGML_STATUS_ALLOC_FAILED:
        raise OutOfMemoryError(f"{what}: {name}")
    raise ComputeError(f"{what}: {name}")
