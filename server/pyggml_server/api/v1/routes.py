"""The routes below ``/v1``."""

from starlette.routing import Route

from pyggml_server.api.state import ApiState
from pyggml_server.api.v1.anthropic import CountTokens, Messages
from pyggml_server.api.v1.chat import ChatCompletions
from pyggml_server.api.v1.completions import Completions
from pyggml_server.api.v1.connection import AnthropicForm, Endpoint
from pyggml_server.api.v1.embeddings import Embeddings
from pyggml_server.api.v1.models import Models, OneModel
from pyggml_server.api.v1.rerank import Rerank
from pyggml_server.api.v1.responses import Responses

__all__ = ["routes"]


def routes(state: ApiState) -> list[Route]:
    """The routes, each with its handler."""
    generator, vectors, catalog = state.generator, state.vectors, state.catalog
    return [
        Route("/v1/chat/completions", Endpoint(ChatCompletions(generator)), methods=["POST"]),
        Route("/v1/completions", Endpoint(Completions(generator)), methods=["POST"]),
        Route("/v1/embeddings", Endpoint(Embeddings(vectors)), methods=["POST"]),
        Route("/v1/messages", Endpoint(Messages(generator), AnthropicForm), methods=["POST"]),
        Route("/v1/messages/count_tokens", Endpoint(CountTokens(generator), AnthropicForm), methods=["POST"]),
        Route("/v1/models", Endpoint(Models(catalog)), methods=["GET"]),
        Route("/v1/models/{model:path}", Endpoint(OneModel(catalog)), methods=["GET"]),
        Route("/v1/rerank", Endpoint(Rerank(vectors)), methods=["POST"]),
        Route("/v1/responses", Endpoint(Responses(generator)), methods=["POST"]),
    ]
