"""Devices by name, and how much memory they say they have."""

from pathlib import Path

import pytest

from helpers.rpc import rpc_server
from pyggml.errors import BackendError, ParameterError
from pyggml.tensor import DeviceType, devices, find_device, find_devices


def test_names() -> None:
    assert find_devices("cpu") == [find_device("CPU")]
    with pytest.raises(BackendError, match=r"no device 'TPU7'; this installation has .*CPU"):
        find_devices("TPU7")
    with pytest.raises(ParameterError, match="host:port"):
        find_devices("rpc://somewhere")


def test_all_gpus() -> None:
    types = [device.type for device in devices()]
    if DeviceType.GPU in types or DeviceType.IGPU in types:
        found = find_devices("gpus")
        assert len({device.type for device in found}) == 1 and found[0].type in (DeviceType.GPU, DeviceType.IGPU)
    else:
        with pytest.raises(BackendError, match="no GPU; this installation has CPU"):
            find_devices("gpus")


def test_an_rpc_server_by_its_address() -> None:
    with rpc_server() as endpoint:
        (device,) = find_devices(f"RPC://{endpoint}")
        assert device.name.startswith("RPC") and not device.is_cpu
        assert find_devices(f"rpc://{endpoint}") == [device]
        assert device.memory()[1] >= find_device("CPU").memory()[1]  # which a container may limit


def test_available_memory_of_the_cpu() -> None:
    free, total = find_device("CPU").memory()
    assert 0 < free < total, "something runs, this test at least"
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        (available,) = [x for x in meminfo.read_text(encoding="ascii").splitlines() if x.startswith("MemAvailable")]
        assert free <= int(available.split()[1]) * 1024 + 2**30
