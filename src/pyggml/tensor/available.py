"""How much of the system's memory this process can still have: what is free, within its control groups' limits."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["available_memory"]

_GROUPS: Final = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""By the controllers of a line of ``/proc/self/cgroup``: folder, files and counter of versions 2 and 1 (Linux,
``admin-guide/cgroup-v2.rst`` and ``cgroup-v1/memory.rst``)."""


def available_memory(root: Path = Path("/")) -> list[int]:
    """Bytes that each limit leaves: the system's memory, and every control group around this process.

    Files that were read and may be forgotten count as free. Empty where the system is not Linux.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    found = []
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            found.append(int(line.split()[1]) * 1024)
    for group, limit, used, files in _groups(root):
        try:
            most = int((group / limit).read_text(encoding="ascii"))
            rows = dict(line.split() for line in _lines(group / "memory.stat"))
            found.append(max(0, most - int((group / used).read_text(encoding="ascii")) + int(rows.get(files, 0))))
        except (OSError, ValueError):
            continue  # "max", or no such limit here
    return found


def _groups(root: Path) -> Iterator[tuple[Path, str, str, str]]:
    """The groups that this process is in, up to the outermost that can be seen from here."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        for name in controllers.split(","):
            if name in _GROUPS:
                folder, *files = _GROUPS[name]
                top = root / "sys/fs/cgroup" / folder
                inside = Path(path.lstrip("/"))
                for group in (inside, *inside.parents) if inside.parts else (inside,):
                    yield (top / group, files[0], files[1], files[2])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []
