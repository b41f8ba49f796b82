"""Quantization of model files, with llama.cpp's mixes of types."""

from pyggml.quantize.file import quantize_file
from pyggml.quantize.mixes import MIXES, Mix, find_mix

__all__ = ["MIXES", "Mix", "find_mix", "quantize_file"]
