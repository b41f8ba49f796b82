"""langchain's integration tests of chat models and embeddings, with langchain-ollama against our server.

Run by test_langchain.py with a Python of its own: langchain's tests bring pytest plugins. PYGGML_URL is the server's
address. CANNOT lists what the model of 135 million parameters does not do; if it does after all, that fails too.
"""

import os
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests

URL = os.environ["PYGGML_URL"]
PROSE = "the model answers in prose instead of calling a tool, and langchain-ollama has no tool choice to force it"
CANNOT = {
    "test_tool_calling": PROSE,
    "test_tool_calling_async": PROSE,
    "test_tool_calling_with_no_arguments": PROSE,
    "test_bind_runnables_as_tools": PROSE,
    "test_unicode_tool_call_integration": PROSE,
    "test_agent_loop": PROSE,
    "test_json_mode": "asked for any JSON, the model writes JSON, but not with the keys that the prompt names",
}


class TestChat(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOllama

    @property
    def chat_model_params(self) -> dict[str, Any]:
        # the penalty ends sentences that the model would repeat for ever inside a text of the schema
        return {"model": "smol", "base_url": URL, "num_predict": 256, "repeat_penalty": 1.3}

    @property
    def has_tool_choice(self) -> bool:
        return False  # langchain-ollama has none

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "smol2"


for name, reason in CANNOT.items():
    setattr(TestChat, name, pytest.mark.xfail(reason=reason)(getattr(ChatModelIntegrationTests, name)))


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return OllamaEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "minilm", "base_url": URL}
