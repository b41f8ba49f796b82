"""Converts a model folder to one GGUF file: finds the writer for its architecture."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pyggml.convert.bert import write_bert
from pyggml.convert.checkpoint import Checkpoint
from pyggml.convert.gemma3 import write_gemma3
from pyggml.convert.llama import write_llama
from pyggml.errors import ModelError, UnsupportedArchitectureError
from pyggml.gguf import GGUFWriter

__all__ = ["CONVERTED_FAMILIES", "CONVERTER_VERSION", "SOURCE_KEY", "VERSION_KEY", "convert_folder"]

CONVERTER_VERSION: Final = 1
"""Raised whenever a conversion changes its output."""
VERSION_KEY: Final = "pyggml.converter_version"
"""Metadata key under which the version stands in converted files."""
SOURCE_KEY: Final = "pyggml.source_sha256"
"""Metadata key for the digest of the weights that a file was converted from."""

_Write = Callable[[Checkpoint, GGUFWriter], None]
# class in config.json → general.architecture, writer
_ARCHITECTURES: Final[Mapping[str, tuple[str, _Write]]] = MappingProxyType(
    {
        "BertModel": ("bert", write_bert),
        "BertForMaskedLM": ("bert", write_bert),
        "BertForSequenceClassification": ("bert", write_bert),
        "Gemma3ForCausalLM": ("gemma3", write_gemma3),
        "Gemma3ForConditionalGeneration": ("gemma3", write_gemma3),
        "LLaMAForCausalLM": ("llama", write_llama),
        "LlamaForCausalLM": ("llama", write_llama),
        "MistralForCausalLM": ("llama", write_llama),
    }
)
CONVERTED_FAMILIES: Final = frozenset(family for family, _ in _ARCHITECTURES.values())
"""The values of ``general.architecture`` that conversions produce."""


def convert_folder(
    source: str | Path, destination: str | Path, *, name: str | None = None, metadata: Mapping[str, Any] | None = None
) -> None:
    """Convert a folder with ``config.json`` and ``*.safetensors`` to a GGUF file.

    Args:
        source: The folder.
        destination: The file to make, atomically.
        name: ``general.name``; None: what ``config.json`` says, else the name of the folder.
        metadata: Further key-values to put into the file.

    Raises:
        UnsupportedArchitectureError: there is no conversion for this model class.
        ModelError: the folder is incomplete or its files do not fit together.
        TokenizerError: the vocabulary is missing or does not fit.
    """
    with Checkpoint(source) as checkpoint:
        kind = checkpoint.architecture
        if kind not in _ARCHITECTURES:
            raise UnsupportedArchitectureError(
                f"{checkpoint.folder}: unsupported architecture {kind!r}; there are {', '.join(_ARCHITECTURES)}"
            )
        if method := _quantized_by(checkpoint):
            raise ModelError(
                f"{checkpoint.folder}: the weights were quantized by {method}; convert those they were made from"
            )
        family, write = _ARCHITECTURES[kind]
        writer = GGUFWriter(destination, architecture=family)
        writer.add("general.name", name or _own_name(checkpoint))
        writer.add(VERSION_KEY, CONVERTER_VERSION)
        for key, value in (metadata or {}).items():
            writer.add(key, value)
        write(checkpoint, writer)
        writer.write()


def _own_name(checkpoint: Checkpoint) -> str:
    name = str(checkpoint.config.get("_name_or_path") or checkpoint.folder.absolute().name)
    return name.rstrip("/").rpartition("/")[2]


def _quantized_by(checkpoint: Checkpoint) -> str:
    settings = checkpoint.config.get("quantization_config")
    return str(settings.get("quant_method", "an unknown method"))[:40] if isinstance(settings, Mapping) else ""
