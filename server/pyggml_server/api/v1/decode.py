"""Bodies of requests, decoded and checked in one step; tasks from what they have in common."""

from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from pyggml_server.api.bodies import decode_body
from pyggml_server.api.tasks import Settings
from pyggml_server.api.v1.common_types import Extras
from pyggml_server.api.v1.errors import FieldError
from pyggml_server.errors import BadRequestError
from pyggml_server.scheduler import KeepAlive

__all__ = ["decode", "encode", "settings_of"]

_T = TypeVar("_T")


async def decode(request: Request, decoder: msgspec.json.Decoder[_T]) -> _T:
    """The body of a request.

    Raises:
        BadRequestError: there is none.
        msgspec.DecodeError: it is no JSON, or not of the type (the error names the field).
    """
    body = await request.body()
    if not body:
        raise BadRequestError("missing request body")
    return decode_body(decoder, body)


def encode(value: object) -> bytes:
    """A document as JSON."""
    return msgspec.json.encode(value)


def settings_of(request: Extras, options: dict[str, Any], **others: Any) -> Settings:
    """The settings of a task: ``options``, what :class:`Extras` gives, and ``others`` by name.

    Raises:
        FieldError: ``keep_alive`` is no duration.
    """
    try:
        keep_alive = None if request.keep_alive is None else KeepAlive.parse(request.keep_alive)
    except (BadRequestError, ValueError) as error:
        raise FieldError(str(error), param="keep_alive") from error
    return Settings(
        options=options,
        keep_alive=keep_alive,
        truncate=request.truncate is not False,
        shift=request.shift is not False,
        priority=request.priority,
        **others,
    )
