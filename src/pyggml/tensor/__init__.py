"""Tensors, graphs and devices: ggml for people. ``ops`` holds the graph operations.

:class:`Session` is the short way: arrays in, expressions, arrays out. Below it are :class:`Arena` (metadata),
:class:`Buffer` (memory), :class:`Graph` (nodes in order) and :class:`Executor` (allocation and computing), which an
engine uses directly. Every operation checks its operands in Python, because ggml ends the process where it is asked
for something that it cannot do.
"""

from . import ops, rpc
from .arena import Arena
from .buffer import Buffer, BufferUsage, trim_memory
from .device import Backend, Device, DeviceType, DryBufferType, devices, find_device, physical_cores
from .dtype import DType, dequantize, dtype_of, numpy_dtype, quantize, row_size
from .executor import Executor
from .find import find_devices
from .graph import Graph
from .profile import NodeTime, OpTime, by_op, table
from .session import Session
from .tensor import Tensor

__all__ = [
    "Arena",
    "Backend",
    "Buffer",
    "BufferUsage",
    "DType",
    "Device",
    "DeviceType",
    "DryBufferType",
    "Executor",
    "Graph",
    "NodeTime",
    "OpTime",
    "Session",
    "Tensor",
    "by_op",
    "dequantize",
    "devices",
    "dtype_of",
    "find_device",
    "find_devices",
    "numpy_dtype",
    "ops",
    "physical_cores",
    "quantize",
    "row_size",
    "rpc",
    "table",
    "trim_memory",
]
