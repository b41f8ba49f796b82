"""The APIs of others, as translations to the generators that Ollama's own uses: OpenAI, Anthropic, Cohere."""

from pyggml_server.api.v1.routes import describe, routes

__all__ = ["describe", "routes"]
