"""What ggml calls back into: log, abort, evaluation of one node.

An exception must not travel through C: each callback keeps its own errors, and the caller on the Python side re-raises
them (see :class:`EvalCallback`).
"""

import contextlib
import faulthandler
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from .loader import ffi, lib

__all__ = ["CustomCallback", "EvalCallback", "eval_callback", "install", "set_log_level"]

log = logging.getLogger("pyggml.ggml")
LEVELS = {
    lib.GGML_LOG_LEVEL_DEBUG: logging.DEBUG,
    lib.GGML_LOG_LEVEL_INFO: logging.DEBUG,  # ggml is chatty: its INFO is our DEBUG
    lib.GGML_LOG_LEVEL_WARN: logging.WARNING,
    lib.GGML_LOG_LEVEL_ERROR: logging.ERROR,
    lib.GGML_LOG_LEVEL_CONT: logging.DEBUG,
}


@ffi.def_extern()  # type: ignore[untyped-decorator]
def pyggml_on_log(level: int, text: Any, user_data: Any) -> None:
    if text != ffi.NULL:
        message = ffi.string(text).decode("utf-8", "replace").rstrip("\n")
        if message:
            log.log(LEVELS.get(level, logging.DEBUG), "%s", message)


@ffi.def_extern()  # type: ignore[untyped-decorator]
def pyggml_on_abort(message: Any) -> None:
    """ggml calls abort() after this returns: tell the user where in Python it came from before the process ends."""
    text = ffi.string(message).decode("utf-8", "replace")
    err = sys.__stderr__ or sys.stderr
    print(f"\nggml stopped the process: {text}\nPython stack (most recent call last):", file=err, flush=True)
    traceback.print_stack(file=err)
    with contextlib.suppress(ValueError, OSError, AttributeError):  # no usable stderr
        faulthandler.dump_traceback(file=err, all_threads=True)
    print("This is a bug in pyggml: arguments are to be checked before they reach ggml.", file=err, flush=True)


class EvalCallback:
    """Collects what a node callback raised, so that it can be re-raised on the Python side."""

    def __init__(self, function: Callable[[Any, bool], bool]) -> None:
        self.function = function
        self.error: BaseException | None = None

    def __call__(self, tensor: Any, ask: bool) -> bool:
        if self.error is not None:
            return False
        try:
            return self.function(tensor, ask)
        except BaseException as error:  # kept and re-raised by eval_callback()
            self.error = error
            return False


@ffi.def_extern()  # type: ignore[untyped-decorator]
def pyggml_on_eval(tensor: Any, ask: bool, user_data: Any) -> bool:
    callback: EvalCallback = ffi.from_handle(user_data)
    return callback(tensor, ask)


@ffi.def_extern()  # type: ignore[untyped-decorator]
def pyggml_on_compute_abort(user_data: Any) -> bool:
    flag: list[bool] = ffi.from_handle(user_data)
    return flag[0]


class CustomCallback:
    """A Python function behind a node; C keeps :attr:`handle`, somebody must keep this object."""

    def __init__(self, function: Callable[[Any], None]) -> None:
        self.function = function
        self.handle = ffi.new_handle(self)
        self.error: BaseException | None = None

    def __call__(self, node: Any) -> None:
        try:
            self.function(node)
        except BaseException as error:  # kept and re-raised by the executor
            self.error = error

    def raise_error(self) -> None:
        """Re-raise what the function raised since the last call."""
        error, self.error = self.error, None
        if error is not None:
            raise error


@ffi.def_extern()  # type: ignore[untyped-decorator]
def pyggml_on_custom(node: Any, ith: int, nth: int, user_data: Any) -> None:
    callback: CustomCallback = ffi.from_handle(user_data)
    if ith == 0:
        callback(node)


@contextlib.contextmanager
def eval_callback(scheduler: Any, function: Callable[[Any, bool], bool]) -> Iterator[None]:
    """While open, ``ggml_backend_sched`` asks ``function(tensor, ask)`` about every node it computes.

    ``ask=True``: shall this node be observed? ``ask=False``: here it is, computed; return False to stop the graph.
    An exception in ``function`` stops the graph and is raised when the context ends.
    """
    callback = EvalCallback(function)
    handle = ffi.new_handle(callback)
    lib.ggml_backend_sched_set_eval_callback(scheduler, lib.pyggml_on_eval, handle)
    try:
        yield
    finally:
        lib.ggml_backend_sched_set_eval_callback(scheduler, ffi.NULL, ffi.NULL)
        if callback.error is not None:
            raise callback.error


def set_log_level(level: int | str) -> None:
    """How much of ggml's log reaches Python's logger ``pyggml.ggml``."""
    log.setLevel(level)


def install() -> None:
    """Take over ggml's log and its abort message."""
    lib.ggml_log_set(lib.pyggml_on_log, ffi.NULL)
    lib.ggml_set_abort_callback(lib.pyggml_on_abort)
