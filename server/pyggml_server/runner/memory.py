"""Whether what a model takes of the system's memory is there, asked before it is taken.

Systems promise more memory than they have, and end a process when it uses what was promised. So a model that cannot fit
is refused while there is still somebody to say why.
"""

from pathlib import Path
from typing import Final

from pyggml.engine import EngineConfig, Fit, fit
from pyggml.errors import OutOfMemoryError
from pyggml.gguf import GGUFFile, ModelMetadata
from pyggml.tensor import find_device

__all__ = ["check_memory", "surely_fits"]

_MEMINFO: Final = Path("/proc/meminfo")
_ROOM: Final = 2 * 2**30
"""Bytes for what no formula covers."""


def surely_fits(path: str, config: EngineConfig, *, free: int) -> bool:
    """Whether a coarse bound of what a model takes is below what is free, so that nothing need be measured.

    Measuring takes a third of the time of loading a small model. The bound counts the file twice (weights may be
    rearranged), caches as if every head had keys and values of its own in 32 bits and twice the usual width, and
    attention's scores in full.
    """
    with GGUFFile(Path(path)) as file:
        metadata = ModelMetadata(file)
        names = ("block_count", "embedding_length", "attention.head_count")
        n_layer, n_embd, n_head = (max(metadata.get_ints(name, default=0), default=0) for name in names)
        size = Path(path).stat().st_size
    if not (n_layer and n_embd and n_head):
        return False
    cells = config.n_ctx * config.n_parallel
    cache = cells * n_layer * n_embd * 2 * 2 * 4
    scores = cells * min(config.n_batch, config.n_ctx) * n_head * 4
    return 2 * size + cache + scores + _ROOM < free


def check_memory(
    path: str, config: EngineConfig, found: Fit | None, *, more: int = 0, meminfo: Path = _MEMINFO
) -> None:
    """Compare the part of a model that lies in the system's memory with what is free there, swap included.

    Args:
        path: The model's file, for the message.
        config: How it is opened.
        found: What it takes, where that was measured.
        more: Bytes of a draft model beside it.
        meminfo: Where the system tells of its memory (Linux); elsewhere there is no swap to count.

    Raises:
        OutOfMemoryError: it is not there; the message names the sizes and the next step.
    """
    if found is None:
        if surely_fits(path, config, free=find_device("CPU").memory()[0] - more):
            return
        found = fit(path, config)
    more = more if len(found.devices) == 1 else 0  # it lies on the first device
    for device in found.devices:
        if not device.device.is_cpu:
            continue
        need, free = device.need, device.free + _swap(meminfo, free=device.free)
        if need.total + more > free:
            parts = f"weights {_mib(need.weights)}, KV cache {_mib(need.cache)}, compute {_mib(need.compute)}"
            parts += f", draft model {_mib(more)}" if more else ""
            raise OutOfMemoryError(
                f"{path}: model requires more system memory ({_mib(need.total + more)} MiB: {parts}) than is available "
                f"({_mib(free)} MiB). Lower num_ctx or OLLAMA_NUM_PARALLEL, take smaller cache types "
                "(OLLAMA_KV_CACHE_TYPE) or a smaller model"
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
