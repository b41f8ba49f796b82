"""Which models are in memory, and who may use them."""

from pyggml_server.config import KeepAlive
from pyggml_server.scheduler.runner import Runner
from pyggml_server.scheduler.scheduler import ModelScheduler
from pyggml_server.scheduler.spec import LoadedModel, LoadOptions, LoadProgress, ModelKey, ModelSpec

__all__ = [
    "KeepAlive",
    "LoadOptions",
    "LoadProgress",
    "LoadedModel",
    "ModelKey",
    "ModelScheduler",
    "ModelSpec",
    "Runner",
]
