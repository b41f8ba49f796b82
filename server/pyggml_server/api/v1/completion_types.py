"""The types of ``POST /v1/completions``."""

from typing import Any

import msgspec

from pyggml_server.api.v1.common_types import Extras, StreamOptions, Usage

__all__ = ["CompletionRequest", "TextChoice", "TextCompletion"]


class CompletionRequest(Extras, kw_only=True):
    """The body; fields as in OpenAI's reference, and :class:`Extras`.

    As in Ollama, the model's template is put round a prompt of text; ``raw`` gives the text to the model as it is.
    A prompt of tokens always is.
    """

    model: str
    prompt: str | list[str | int | list[int]] = ""
    suffix: str | None = None
    raw: bool = False
    echo: bool | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: int | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # refused when set
    best_of: int | None = None


class TextChoice(msgspec.Struct):
    """One of the answers."""

    text: str
    index: int
    finish_reason: str | None
    logprobs: dict[str, Any] | None = None


class TextCompletion(msgspec.Struct):
    """The whole answer."""

    id: str
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
    object: str = "text_completion"
    system_fingerprint: str = "fp_ollama"
