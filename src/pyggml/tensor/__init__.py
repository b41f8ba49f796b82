"""Tensors, graphs and devices: ggml for people. ``ops`` holds the graph operations."""

from . import ops
from .arena import Arena
from .buffer import Buffer, BufferUsage
from .device import Backend, Device, DeviceType, devices, find_device, physical_cores
from .dtype import DType, dequantize, dtype_of, numpy_dtype, quantize, row_size
from .executor import Executor, NodeTime
from .graph import Graph
from .tensor import Tensor

__all__ = [
    "Arena",
    "Backend",
    "Buffer",
    "BufferUsage",
    "DType",
    "Device",
    "DeviceType",
    "Executor",
    "Graph",
    "NodeTime",
    "Tensor",
    "dequantize",
    "devices",
    "dtype_of",
    "find_device",
    "numpy_dtype",
    "ops",
    "physical_cores",
    "quantize",
    "row_size",
]
