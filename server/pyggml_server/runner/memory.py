"""Whether what a model takes of the system's memory is there, asked before it is taken.

Systems promise more memory than they have, and end a process when it uses what was promised. So a model that cannot fit
is refused while there is still somebody to say why.
"""

from pathlib import Path
from typing import Final

from pyggml.engine import Fit
from pyggml.errors import OutOfMemoryError

__all__ = ["check_memory"]

_MEMINFO: Final = Path("/proc/meminfo")


def check_memory(path: str, found: Fit, *, meminfo: Path = _MEMINFO) -> None:
    """Compare the part of a model that lies in the system's memory with what is free there, swap included.

    Args:
        path: The model's file, for the message.
        found: What the model takes.
        meminfo: Where the system tells of its memory (Linux); elsewhere there is no swap to count.

    Raises:
        OutOfMemoryError: it is not there; the message names the sizes and the next step.
    """
    for device in found.devices:
        if not device.device.is_cpu:
            continue
        need, free = device.need, device.free + _swap(meminfo, free=device.free)
        if need.total > free:
            raise OutOfMemoryError(
                f"{path}: model requires more system memory ({_mib(need.total)} MiB: weights {_mib(need.weights)}, KV "
                f"cache {_mib(need.cache)}, compute {_mib(need.compute)}) than is available ({_mib(free)} MiB). Lower "
                "num_ctx or OLLAMA_NUM_PARALLEL, take smaller cache types (OLLAMA_KV_CACHE_TYPE) or a smaller model"
            )


def _swap(meminfo: Path, *, free: int) -> int:
    """Bytes of swap that can be used; none within a container's limit, which is below what the system has."""
    try:
        rows = dict(line.split(":") for line in meminfo.read_text(encoding="ascii").splitlines() if ":" in line)
        available, swap = (int(rows[name].split()[0]) * 1024 for name in ("MemAvailable", "SwapFree"))
    except (OSError, ValueError, KeyError, IndexError):
        return 0
    return swap if free >= 0.9 * available else 0


def _mib(n: int) -> int:
    return -(-n // 2**20)
