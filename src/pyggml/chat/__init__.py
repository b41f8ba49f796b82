"""Chat templates: conversations to prompts, by the Jinja template in a GGUF file, in a sandbox with limits."""

from pyggml.chat.budget import TemplateLimits
from pyggml.chat.template import ChatTemplate

__all__ = ["ChatTemplate", "TemplateLimits"]
