"""Low-rank adapters (LoRA, Hu et al. 2021) from GGUF files, several of them at once, each with a scale per token."""

from .adapter import EMBEDDING, AdapterPair, LoraAdapter
from .adapters import Adapters
from .overlay import AdaptedArena, Overlay, overlay_of
from .writer import write_adapter

__all__ = [
    "EMBEDDING",
    "AdaptedArena",
    "AdapterPair",
    "Adapters",
    "LoraAdapter",
    "Overlay",
    "overlay_of",
    "write_adapter",
]
