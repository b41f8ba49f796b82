"""How much of the system's memory this process can still have: what is free, within its control groups' limits."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["available_memory"]

_GROUPS: Final = {
    "": ("", "memory.max", "memory.current", ""),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}
"""By the controllers of a line of ``/proc/self/cgroup``: folder, files and prefix of counters of versions 2 and 1
(Linux, ``admin-guide/cgroup-v2.rst`` and ``cgroup-v1/memory.rst``)."""


def available_memory(root: Path = Path("/")) -> list[tuple[int, int]]:
    """Bytes that each limit leaves, and the limit: of the system's memory, and of every control group around this
    process.

    Files that were read and may be forgotten count as free. Empty where the system is not Linux.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    found = []
    rows = dict(line.split(":", 1) for line in _lines(root / "proc/meminfo") if ":" in line)
    if "MemAvailable" in rows and "MemTotal" in rows:
        left, most = (int(rows[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
        found.append((left, most))
    for group, limit, used, prefix in _groups(root):
        try:
            most = int((group / limit).read_text(encoding="ascii"))
            counts = dict(line.split() for line in _lines(group / "memory.stat"))
            files = sum(int(counts.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
            left = most - int((group / used).read_text(encoding="ascii")) + files
            found.append((max(0, min(left, most)), most))
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
