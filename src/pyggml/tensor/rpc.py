"""Devices of other machines (ggml's RPC back end).

The protocol has neither encryption nor authentication, and a server trusts every byte it receives: whoever can
connect can read and write the process's memory. Use it on loopback or in a network where every machine is yours.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Sequence
from typing import Any

from pyggml._ffi import ffi, lib, load
from pyggml.errors import BackendError, ParameterError

from .device import Device, DeviceType, devices, text

__all__ = ["connect", "serve"]

log = logging.getLogger("pyggml.rpc")
WARNING = (
    "RPC server on %s: no encryption, no authentication; whoever can connect controls this process. "
    "Only in a network where every machine is yours."
)


def _api() -> Any:
    load()
    api = lib.pyggml_rpc
    if api.ggml_backend_rpc_add_server == ffi.NULL:
        raise BackendError("this installation has no RPC back end; build with -Ccmake.define.GGML_RPC=ON")
    return api


def _split(endpoint: str) -> tuple[str, int]:
    host, separator, port = endpoint.rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ParameterError(f"an RPC endpoint is host:port, got {endpoint!r}")
    return host.strip("[]"), int(port)


def connect(endpoint: str, *, timeout: float = 5.0) -> list[Device]:
    """The devices that a server at ``endpoint`` (``host:port``) offers, as devices of this process.

    Raises:
        ParameterError: the endpoint is none.
        BackendError: nothing listens there, or it is no RPC server of this version.
    """
    api = _api()
    host, port = _split(endpoint)
    try:
        socket.create_connection((host, port), timeout).close()
    except OSError as error:
        raise BackendError(f"no RPC server at {endpoint}: {error}") from error
    registry = api.ggml_backend_rpc_add_server(endpoint.encode())
    if registry == ffi.NULL:
        raise BackendError(f"{endpoint} is not an RPC server that this version understands")
    found = []
    for i in range(lib.ggml_backend_reg_dev_count(registry)):
        ptr = lib.ggml_backend_reg_dev_get(registry, i)
        name, about = text(lib.ggml_backend_dev_name(ptr)), text(lib.ggml_backend_dev_description(ptr))
        found.append(Device(ptr, name, about, DeviceType(lib.ggml_backend_dev_type(ptr))))
    if not found:
        raise BackendError(f"the RPC server at {endpoint} offers no device")
    return found


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(
    host: str = "127.0.0.1",
    port: int = 50052,
    *,
    offered: Sequence[Device] | None = None,
    n_threads: int = 4,
    allow_remote: bool = False,
) -> None:
    """Offer devices of this machine to others; does not return.

    Args:
        host: the address to listen on.
        port: 1 to 65535.
        offered: which devices; default: all of them.
        n_threads: for the CPU.
        allow_remote: listen on another address than loopback. Read the warning at the top of this module first.

    Raises:
        ParameterError: an address that others can reach, without ``allow_remote``.
        BackendError: the address cannot be listened on.
    """
    api = _api()
    _split(f"{host}:{port}")
    if n_threads < 1:
        raise ParameterError(f"n_threads must be 1 or more, got {n_threads}")
    if not _is_loopback(host):
        if not allow_remote:
            raise ParameterError(
                f"{host} can be reached by others, and RPC has no protection of any kind; "
                "listen on 127.0.0.1, or pass allow_remote=True in a network where every machine is yours"
            )
        log.warning(WARNING, f"{host}:{port}")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise BackendError(f"cannot listen on {host}:{port}: {error}") from error
    chosen = list(offered) if offered is not None else devices()
    if not chosen:
        raise ParameterError("no device to offer")
    array = ffi.new("ggml_backend_dev_t[]", [d.ptr for d in chosen])
    endpoint = f"{host}:{port}".encode()
    api.ggml_backend_rpc_start_server(endpoint, ffi.NULL, n_threads, len(chosen), array)
    raise BackendError(f"the RPC server on {host}:{port} stopped")
