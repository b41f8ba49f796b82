"""Fields of OpenAI's and Anthropic's requests as Ollama's options."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pyggml_server.api.v1.common_types import Extras
from pyggml_server.api.v1.errors import FieldError

__all__ = [
    "MAX_CHOICES",
    "MAX_LOGPROBS",
    "check_range",
    "logit_bias_of",
    "options_of",
    "plain_options",
    "stops_of",
    "think_of",
]

MAX_CHOICES: Final = 128
MAX_LOGPROBS: Final = 20
_EFFORTS: Final[dict[str, bool | str]] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "ultra": "max",
    "max": "max",
}


def options_of(
    request: Extras,
    given: Mapping[str, Any],
    *,
    max_tokens: tuple[str, int | None] = ("max_tokens", None),
    stop: str | Sequence[str] | None = None,
) -> dict[str, Any]:
    """The options of a request: ``given`` fields (None: not given) over ``request.options`` over OpenAI's defaults.

    Those defaults are a temperature and a top_p of 1, whatever the Modelfile says; other options keep the model's.

    Args:
        request: the fields beyond the reference.
        given: options by Ollama's names, from fields of the route's own.
        max_tokens: the field that limits the answer, its name first.
        stop: texts that end the answer.

    Raises:
        FieldError: a limit below 1.
    """
    options = {"temperature": 1.0, "top_p": 1.0, **plain_options(request)}
    options.update({name: value for name, value in given.items() if value is not None})
    field, limit = max_tokens
    if limit is not None:
        if limit < 1:
            raise FieldError(f"{field} must be 1 or more, got {limit}", param=field)
        options["num_predict"] = limit
    if stops := stops_of(stop):
        options["stop"] = stops
    return options


def plain_options(request: Extras) -> dict[str, Any]:
    """The options of a request without those of a route's own: ``options`` and the short spellings."""
    short = {"num_ctx": request.num_ctx, "top_k": request.top_k, "min_p": request.min_p}
    return {**(request.options or {}), **{name: value for name, value in short.items() if value is not None}}


def stops_of(stop: str | Sequence[str] | None) -> list[str]:
    """Stop strings as a list. An empty one would end every answer at once; forms send it for "none"."""
    texts = [stop] if isinstance(stop, str) else stop or []
    return [text for text in texts if text]


def logit_bias_of(bias: Mapping[str, float] | None) -> dict[str, float | bool] | None:
    """What is added to the logits of tokens, by id; -100 forbids one, as OpenAI's reference has it.

    Raises:
        FieldError: a key is no token id, or a value is not between -100 and 100.
    """
    if not bias:
        return None
    found: dict[str, float | bool] = {}
    for key, value in bias.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise FieldError(f"logit_bias: the key {key[:40]!r} is no token id", param="logit_bias")
        check_range("logit_bias", value, -100, 100)
        found[key] = False if value == -100 else value  # False: Ollama's options have no infinity
    return found


def check_range(field: str, value: float | None, least: float, largest: float) -> None:
    """Refuse a number outside ``least`` to ``largest``; None is not given, and fine.

    Raises:
        FieldError: it is outside.
    """
    if value is not None and not least <= value <= largest:
        raise FieldError(f"{field} must be between {least:g} and {largest:g}", param=field)


def think_of(effort: str | None, *, param: str) -> bool | str | None:
    """How hard to think, in Ollama's words; None: as the model does by itself.

    Raises:
        FieldError: an effort that does not exist.
    """
    if effort is None:
        return None
    if effort not in _EFFORTS:
        known = ", ".join(_EFFORTS)
        raise FieldError(f"invalid reasoning effort {effort[:40]!r} (must be one of: {known})", param=param)
    return _EFFORTS[effort]
