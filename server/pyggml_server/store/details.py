"""The description of a model: the JSON document that a manifest calls its config."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from pyggml.gguf import GGUFFile, ModelMetadata, file_type_name, parameter_count
from pyggml_server.errors import StoreError

__all__ = ["RECORDED", "ModelDetails", "describe_gguf", "human_bytes", "human_count"]

RECORDED: Final = ("renderer", "parser", "requires")
"""What a description holds for Ollama alone; commands of the Modelfile, too."""


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """What Ollama's clients see as ``details``.

    Attributes:
        format: The format of the weights, ``gguf``.
        family: ``general.architecture``.
        families: All architectures in the model (a projector has its own).
        parameter_size: Number of parameters for people, e.g. ``134.52M``.
        quantization_level: E.g. ``Q4_K_M``.
        renderer: Name of the code that writes prompts in Ollama; recorded for it, as are the next two.
        parser: Name of the code that reads answers in Ollama.
        requires: The version of Ollama that the model needs.
    """

    format: str = ""
    family: str = ""
    families: tuple[str, ...] = ()
    parameter_size: str = ""
    quantization_level: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""

    def to_bytes(self, *, layers: tuple[str, ...]) -> bytes:
        """The config document, with the digests of the layers in it, as Ollama writes it."""
        document = {
            "model_format": self.format,
            "model_family": self.family,
            "model_families": list(self.families),
            "model_type": self.parameter_size,
            "file_type": self.quantization_level,
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": list(layers)},
        }
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def parse(cls, data: bytes, *, label: str) -> Self:
        """Read a config document; fields that are absent stay empty.

        Raises:
            StoreError: it is not JSON or a field has the wrong type.
        """
        try:
            document: dict[str, Any] = json.loads(data)
            families = document.get("model_families") or []
            texts = [document.get(key) or "" for key in ("model_format", "model_family", "model_type", "file_type")]
            if not all(isinstance(v, str) for v in [*texts, *families]):
                raise TypeError("a field is not text")
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise StoreError(f"{label}: the model's description is damaged ({error})") from error
        # a model works as well without these, or with ones that make no sense
        recorded = {key: value for key in RECORDED if isinstance(value := document.get(key), str)}
        return cls(texts[0], texts[1], tuple(families), texts[2], texts[3], **recorded)


def describe_gguf(path: Path) -> ModelDetails:
    """The description of a GGUF file.

    Raises:
        GGUFError: the file is not a valid model.
    """
    with GGUFFile(path) as file:
        family = ModelMetadata(file).architecture
        return ModelDetails(
            format="gguf",
            family=family,
            families=(family,),
            parameter_size=human_count(parameter_count(file)),
            quantization_level=file_type_name(file),
        )


def human_count(n: int) -> str:
    """A count as Ollama prints it: 134515008 → ``134.52M``, 8000000000 → ``8B``, 7240000000 → ``7.2B``."""
    if n >= 10**9:
        return f"{n // 10**9}B" if n % 10**9 == 0 else f"{n / 10**9:.1f}B"
    if n >= 10**6:
        return f"{n // 10**6}M" if n % 10**6 == 0 else f"{n / 10**6:.2f}M"
    if n >= 10**3:
        return f"{n / 10**3:.0f}K"
    return str(n)


def human_bytes(n: int) -> str:
    """A size as Ollama prints it, in decimal units: 98362432 → ``98 MB``, 1300000000 → ``1.3 GB``."""
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if n >= unit:
            value = n / unit
            digits = 0 if value >= 10 or value == int(value) else 1
            return f"{value:.{digits}f} {name}"
    return f"{n} B"
