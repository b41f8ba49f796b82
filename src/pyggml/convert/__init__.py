"""Conversion of other model formats to GGUF, and the types that quantization gives to tensors. No native code."""

from pyggml.convert.adapter import convert_adapter
from pyggml.convert.folder import (
    CONVERTED_FAMILIES,
    CONVERTER_VERSION,
    SOURCE_KEY,
    VERSION_KEY,
    convert_folder,
)
from pyggml.convert.mixes import MIXES, Mix, MixModel, choose_types, find_mix, sort_key
from pyggml.convert.safetensors import SafetensorsFile, SourceTensor

__all__ = [
    "CONVERTED_FAMILIES",
    "CONVERTER_VERSION",
    "MIXES",
    "SOURCE_KEY",
    "VERSION_KEY",
    "Mix",
    "MixModel",
    "SafetensorsFile",
    "SourceTensor",
    "choose_types",
    "convert_adapter",
    "convert_folder",
    "find_mix",
    "sort_key",
]
