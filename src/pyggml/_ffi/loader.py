"""Find the native library, open every back end beside it exactly once, and say clearly when that fails."""

import functools
import logging
import threading
from pathlib import Path
from typing import Any

from pyggml.errors import LibraryError

try:
    # Windows would need os.add_dll_directory(library_folder()) before this line.
    from pyggml._ffi._ggml import ffi, lib
except ImportError as error:
    raise LibraryError(
        f"pyggml's compiled module cannot be imported ({error}); install the package (pip install .) "
        "instead of running from the source tree"
    ) from error

__all__ = ["backend_libraries", "ffi", "lib", "library_folder", "load", "proc_address"]

log = logging.getLogger("pyggml.ggml")
REQUIRED = (
    "ggml_threadpool_new",
    "ggml_threadpool_free",
    "ggml_backend_cpu_set_n_threads",
    "ggml_backend_cpu_set_threadpool",
    "ggml_backend_cpu_set_abort_callback",
)
_lock = threading.Lock()


def library_folder() -> Path:
    """Where the wheel put ggml's libraries: by the compiled module, which an editable install keeps elsewhere than the
    Python files.
    """
    folder = Path(ffi_module_path()).parent.parent / "lib"
    if folder.is_dir():
        return folder
    raise LibraryError(f"ggml's libraries are missing: {folder} is no folder; reinstall pyggml")


def ffi_module_path() -> str:
    """The file of the compiled module."""
    import pyggml._ffi._ggml as module

    return str(module.__file__)


def backend_libraries() -> list[Path]:
    """The back-end files of this installation."""
    return sorted(library_folder().glob("libggml-*.so"))


@functools.cache
def _load_once() -> None:
    from . import callbacks

    callbacks.install()
    lib.ggml_time_init()
    lib.ggml_backend_load_all_from_path(str(library_folder()).encode())
    files = backend_libraries()
    if lib.ggml_backend_dev_count() == 0:
        raise LibraryError(
            f"no ggml back end could be opened; {library_folder()} holds {[f.name for f in files] or 'none'} "
            "(a CPU library built for another machine is skipped: reinstall with pip install --no-binary pyggml pyggml)"
        )
    cpu = [f for f in files if f.name.startswith("libggml-cpu")]
    # A header may declare a function that no library defines (ggml 0.25.3: ggml_threadpool_get_n_threads): only those
    # that pyggml calls must be there.
    opened = any(lib.pyggml_bind_cpu(str(f).encode()) >= 0 for f in cpu)
    absent = [name for name in REQUIRED if getattr(lib.pyggml_cpu, name) == ffi.NULL]
    if not opened or absent:
        raise LibraryError(f"the CPU back end ({[f.name for f in cpu]}) lacks {absent}; reinstall pyggml")
    for file in files:
        if file.name == "libggml-rpc.so":
            lib.pyggml_bind_rpc(str(file).encode())
    _warn_about_unopened(files)


def _warn_about_unopened(files: list[Path]) -> None:
    names = {
        ffi.string(lib.ggml_backend_reg_name(lib.ggml_backend_reg_get(i))).decode().lower()
        for i in range(lib.ggml_backend_reg_count())
    }
    for file in files:
        kind = file.stem.removeprefix("libggml-").split("-")[0]
        aliases = {"metal": "mtl", "hip": "rocm"}
        if not any(name.startswith((kind, aliases.get(kind, kind))) for name in names):
            log.warning("back end %s did not open (missing driver or system library?); going on without it", file.name)


def load() -> Any:
    """Open the back ends (first call only) and return ``lib``.

    Raises:
        LibraryError: no back end could be opened.
    """
    with _lock:
        _load_once()
    return lib


def proc_address(registry: Any, name: str, c_type: str) -> Any | None:
    """A function that a back end offers by name (``ggml_backend_reg_get_proc_address``), or None."""
    pointer = lib.ggml_backend_reg_get_proc_address(registry, name.encode())
    return None if pointer == ffi.NULL else ffi.cast(c_type, pointer)
