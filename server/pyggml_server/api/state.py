"""What every handler works with."""

from dataclasses import dataclass

from pyggml_server.api.catalog import Catalog
from pyggml_server.api.generation import Generator
from pyggml_server.api.metrics import ServerMetrics
from pyggml_server.api.vectors import VectorService
from pyggml_server.config import Config
from pyggml_server.scheduler import ModelScheduler
from pyggml_server.store import Store, Transfers

__all__ = ["ApiState"]


@dataclass(frozen=True, slots=True)
class ApiState:
    """The parts of a server; made once, by :func:`pyggml_server.api.create_app`.

    Attributes:
        config: The settings.
        store: Models on disk.
        scheduler: Models in memory.
        transfers: Models under way from or to elsewhere.
        catalog: Models by name, with renderer and tokenizer.
        generator: Chat and plain prompts.
        vectors: Embeddings and scores.
        metrics: Counters for ``/metrics``.
    """

    config: Config
    store: Store
    scheduler: ModelScheduler
    transfers: Transfers
    catalog: Catalog
    generator: Generator
    vectors: VectorService
    metrics: ServerMetrics
