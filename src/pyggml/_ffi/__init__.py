"""The binding: the only room, with :mod:`pyggml.tensor`, that touches cffi objects.

``ffi`` and ``lib`` come from the compiled module (cffi API mode; the C compiler checked every declaration against
ggml's headers). :func:`load` opens the back ends once. :func:`check_status` and :func:`not_null` turn C results into
exceptions. ``lib.pyggml_cpu`` and ``lib.pyggml_rpc`` hold the functions of the CPU and RPC back ends after loading.
"""

from .callbacks import CustomCallback, EvalCallback, eval_callback, set_log_level
from .check import check_status, not_null
from .loader import backend_libraries, ffi, lib, load, proc_address

__all__ = [
    "CustomCallback",
    "EvalCallback",
    "backend_libraries",
    "check_status",
    "eval_callback",
    "ffi",
    "lib",
    "load",
    "not_null",
    "proc_address",
    "set_log_level",
]
