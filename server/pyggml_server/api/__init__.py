"""HTTP: Ollama's API and what it lacks, OpenAI's and Anthropic's, and the generator that they share."""

from pyggml_server.api.app import create_app

__all__ = ["create_app"]
