"""Devices by the names that people give them."""

from pyggml.errors import BackendError

from .device import Device, DeviceType, devices, find_device
from .rpc import connect

__all__ = ["find_devices"]


def find_devices(name: str) -> list[Device]:
    """The devices that ``name`` stands for: ``gpus``: all of this machine (those that share the CPU's memory only when
    there is no other); ``rpc://host:port``: those of an RPC server (:mod:`pyggml.tensor.rpc`, whose warning counts);
    else one, as with :func:`find_device`.

    Raises:
        BackendError: there is none. ParameterError: the endpoint is none.
    """
    if name.lower().startswith("rpc://"):
        return connect(name[len("rpc://") :])
    if name.lower() != "gpus":
        return [find_device(name)]
    found = devices()
    for kind in (DeviceType.GPU, DeviceType.IGPU):
        if gpus := [device for device in found if device.type == kind]:
            return gpus
    raise BackendError(f"no GPU; this installation has {', '.join(d.name for d in found)}")
