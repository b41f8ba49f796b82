"""One model on a device: load it, ask for logits, embeddings or text, for one or many requests at once."""

from .config import EngineConfig
from .decoder import Decoder, DecoderStats
from .draft_model import DraftModel
from .drafting import Drafter, PromptLookup
from .embedding import Embedder, Embeddings, Scores, TextJob
from .engine import Engine
from .fit import DeviceFit, Fit, fit
from .generation import Generation
from .measure import measure, measure_parallel
from .metrics import StepMetrics
from .request import MAX_LOGPROBS, Request
from .scheduler import Scheduler
from .slots import Slot, Slots
from .stop import StopMatcher
from .task import GenerationStats, Piece, Task

__all__ = [
    "MAX_LOGPROBS",
    "Decoder",
    "DecoderStats",
    "DeviceFit",
    "DraftModel",
    "Drafter",
    "Embedder",
    "Embeddings",
    "Engine",
    "EngineConfig",
    "Fit",
    "Generation",
    "GenerationStats",
    "Piece",
    "PromptLookup",
    "Request",
    "Scheduler",
    "Scores",
    "Slot",
    "Slots",
    "StepMetrics",
    "StopMatcher",
    "Task",
    "TextJob",
    "fit",
    "measure",
    "measure_parallel",
]
