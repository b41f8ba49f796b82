"""langchain's integration tests of chat models and embeddings, with langchain-ollama against our server.

Run by test_langchain.py with a Python of its own: langchain's tests bring pytest plugins. PYGGML_URL says where the
server listens. What is marked xfail is what the model of 135 million parameters does not do by itself; langchain-ollama
cannot ask for it either, for it passes no tool choice on.
"""

import os
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests

URL = os.environ["PYGGML_URL"]
CALLS_NOTHING = "SmolLM2-135M answers in prose instead of calling a tool, and langchain-ollama sends no tool choice"


class TestChat(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOllama

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "smol", "base_url": URL}

    @property
    def has_tool_choice(self) -> bool:
        return False  # langchain-ollama has none

    @property
    def supports_json_mode(self) -> bool:
        return True


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return OllamaEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "minilm", "base_url": URL}
