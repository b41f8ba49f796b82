"""The store of the settings."""

from pyggml_server.config import Config
from pyggml_server.store import Store

__all__ = ["open_store"]


def open_store(config: Config | None = None) -> Store:
    """The store at ``OLLAMA_MODELS``, which keeps what nobody uses where ``OLLAMA_NOPRUNE`` says so.

    Args:
        config: The settings; by default they are read.

    Raises:
        ConfigError: a setting is wrong.
    """
    config = config or Config.from_environment()
    return Store(config.models, keep_unused=config.no_prune)
