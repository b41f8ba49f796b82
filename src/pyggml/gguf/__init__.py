"""GGUF model files: a fast reader that takes files for hostile, typed metadata, a writer. No native code."""

from pyggml.errors import GGUFError
from pyggml.gguf.filetype import file_type_name, parameter_count
from pyggml.gguf.metadata import ModelMetadata
from pyggml.gguf.reader import GGUFFile
from pyggml.gguf.strings import StringArray
from pyggml.gguf.types import FieldType, GGMLType, TensorInfo, ValueType
from pyggml.gguf.writer import GGUFWriter, TensorData, copy_gguf

__all__ = [
    "FieldType",
    "GGMLType",
    "GGUFError",
    "GGUFFile",
    "GGUFWriter",
    "ModelMetadata",
    "StringArray",
    "TensorData",
    "TensorInfo",
    "ValueType",
    "copy_gguf",
    "file_type_name",
    "parameter_count",
]
