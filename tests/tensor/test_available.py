"""Memory that a process can still have, by the files in which Linux tells of it."""

from pathlib import Path

import pytest

from pyggml.tensor.available import available_memory

MIB = 2**20


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def system(root: Path, groups: str) -> None:
    memory = f"MemTotal: {900 * 1024} kB\nMemAvailable: {800 * 1024} kB\n"
    write(root, proc__meminfo=memory, proc__self__cgroup=groups)


def limits(root: Path, folder: str, most: str, used: int, files: int) -> None:
    group = root / "sys/fs/cgroup" / folder
    text = f"anon 5\ninactive_file {files * MIB // 2}\nactive_file {files * MIB // 2}\n"
    write(group, **{"memory.max": most, "memory.current": str(used * MIB), "memory.stat": text})


def test_without_groups_it_is_the_system_s(tmp_path: Path) -> None:
    assert available_memory(tmp_path) == []
    system(tmp_path, "0::/\n")
    assert available_memory(tmp_path) == [(800 * MIB, 900 * MIB)]


@pytest.mark.parametrize("path", ["/", "/docker/0123"])
def test_a_container_sees_its_own_limit_at_the_root(tmp_path: Path, path: str) -> None:
    system(tmp_path, f"0::{path}\n")
    limits(tmp_path, "", str(500 * MIB), 300, 50)
    assert available_memory(tmp_path)[1:] == [(250 * MIB, 500 * MIB)]


def test_every_group_around_a_service_counts(tmp_path: Path) -> None:
    system(tmp_path, "1:name=systemd:/x\n0::/system.slice/pyggml.service\n")
    limits(tmp_path, "system.slice/pyggml.service", "max", 10, 0)
    limits(tmp_path, "system.slice", str(100 * MIB), 200, 0)
    assert available_memory(tmp_path)[1:] == [(0, 100 * MIB)]


def test_version_1(tmp_path: Path) -> None:
    system(tmp_path, "8:pids:/a\n4:cpu,memory:/a/b\n")
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    for folder, most in (("a/b", 300 * MIB), ("a", 2**63 - 4096)):
        values = (str(most), str(100 * MIB), f"inactive_file 1\ntotal_inactive_file {20 * MIB}\n")
        write(tmp_path / "sys/fs/cgroup/memory" / folder, **dict(zip(names, values, strict=True)))
    assert min(available_memory(tmp_path)) == (220 * MIB, 300 * MIB)
