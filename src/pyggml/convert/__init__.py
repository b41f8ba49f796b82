"""Conversion of other model formats to GGUF."""

from pyggml.convert.folder import (
    CONVERTED_FAMILIES,
    CONVERTER_VERSION,
    SOURCE_KEY,
    VERSION_KEY,
    convert_folder,
)
from pyggml.convert.safetensors import SafetensorsFile, SourceTensor

__all__ = [
    "CONVERTED_FAMILIES",
    "CONVERTER_VERSION",
    "SOURCE_KEY",
    "VERSION_KEY",
    "SafetensorsFile",
    "SourceTensor",
    "convert_folder",
]
