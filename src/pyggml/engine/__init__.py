"""One model on a device: load it, ask for logits, embeddings or text."""

from .config import EngineConfig
from .decoder import Decoder, DecoderStats
from .engine import Engine
from .fit import DeviceFit, Fit, fit
from .generation import Generation, GenerationStats, Piece
from .measure import measure
from .stop import StopMatcher

__all__ = [
    "Decoder",
    "DecoderStats",
    "DeviceFit",
    "Engine",
    "EngineConfig",
    "Fit",
    "Generation",
    "GenerationStats",
    "Piece",
    "StopMatcher",
    "fit",
    "measure",
]
