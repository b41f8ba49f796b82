"""Variables of Ollama that mean nothing here, each with the reason: told, not silently ignored."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["UNUSED", "find_unused"]

UNUSED: Final = MappingProxyType(
    {
        "OLLAMA_MULTIUSER_CACHE": "a request always gets the sequence that shares most with it, and free ones go first",
        "OLLAMA_NEW_ENGINE": "there is one engine",
        "OLLAMA_GO_TEMPLATE": "a model's Go template is used where it has one",
        "OLLAMA_LLM_LIBRARY": "back ends are chosen with PYGGML_DEVICES",
        "OLLAMA_LIBRARY_PATH": "the libraries are inside of the package",
        "OLLAMA_RUNNERS_DIR": "the libraries are inside of the package",
        "OLLAMA_TMPDIR": "nothing is unpacked; TMPDIR names the folder of sockets",
        "OLLAMA_INTEL_GPU": "devices are those that ggml finds; PYGGML_DEVICES chooses",
        "OLLAMA_IGPU_ENABLE": "devices are those that ggml finds; PYGGML_DEVICES chooses",
        "OLLAMA_VULKAN": "Vulkan is used where the package was built with it; PYGGML_DEVICES chooses",
        "OLLAMA_MAX_VRAM": "OLLAMA_GPU_OVERHEAD and PYGGML_MEMORY_MARGIN leave memory free",
        "OLLAMA_EXPERIMENT": "there are no experiments to switch on",
        "OLLAMA_NOHISTORY": "the chat on the terminal keeps no history",
        "OLLAMA_EDITOR": "the chat on the terminal opens no editor",
        "OLLAMA_REMOTES": "models on other machines are not served",
        "OLLAMA_NO_CLOUD": "there is no cloud",
        "OLLAMA_AUTH": "clients show keys of PYGGML_API_KEYS",
        "OLLAMA_DEBUG_LOG_REQUESTS": "OLLAMA_DEBUG=2 logs prompts",
        "OLLAMA_MAX_TRANSFER_STREAMS": "the number of connections is fixed",
        "OLLAMA_LLAMA_CPP_COMPAT": "there is no llama-server",
        "LLAMA_ARG_FIT": "there is no llama-server; models are always fitted",
        "LLAMA_ARG_FIT_TARGET": "there is no llama-server; PYGGML_MEMORY_MARGIN says what stays free",
        "OLLAMA_AGENT_DISABLE_SHELL": "there is no agent",
        "OLLAMA_AGENT_DISABLE_WEBSEARCH": "there is no agent",
    }
)
"""Variable → why it means nothing."""


def find_unused(environment: Mapping[str, str]) -> dict[str, str]:
    """Those that are set all the same, with the reason."""
    return {name: reason for name, reason in UNUSED.items() if environment.get(name, "").strip()}
