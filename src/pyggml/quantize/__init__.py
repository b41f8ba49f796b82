"""Quantization of model files, with llama.cpp's mixes of types (:data:`pyggml.convert.MIXES`)."""

from pyggml.quantize.file import quantize_file

__all__ = ["quantize_file"]
