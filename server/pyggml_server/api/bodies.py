"""Bodies of requests become objects."""

import re
from typing import Annotated, Final, TypeVar

import msgspec

__all__ = ["Int32", "decode_body"]

_T = TypeVar("_T")

Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
"""A number in a body that goes on to the runner, whose protocol has no longer ones than 64 bits."""

_ESCAPES: Final = re.compile(
    rb"""
    \\u[dD][89abAB][0-9a-fA-F]{2} \\u[dD][c-fC-F][0-9a-fA-F]{2}  # a pair of surrogates
    | (?P<half> \\u[dD][89a-fA-F][0-9a-fA-F]{2} )
    | \\.  # so that the second backslash of two begins nothing
    """,
    re.DOTALL | re.VERBOSE,
)


def decode_body(decoder: "msgspec.json.Decoder[_T]", body: bytes) -> _T:
    """Decode JSON. Text that is not Unicode gets U+FFFD in the wrong places, as Go does it: clients cut texts in the
    middle of a character, and JavaScript then writes half of a surrogate pair.

    Raises:
        msgspec.DecodeError: this is not JSON, is nested too deeply, or (:class:`msgspec.ValidationError`) does not have
            the fields that are needed.
    """
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, UnicodeDecodeError):
            mended = _mend(body)
            if mended == body:
                raise
            return decoder.decode(mended)
    except RecursionError:
        raise msgspec.DecodeError("JSON is nested too deeply") from None


def _mend(body: bytes) -> bytes:
    """The same with U+FFFD for bytes that are not UTF-8 and for halves of surrogate pairs."""
    text = body.decode("utf-8", "replace").encode()
    return _ESCAPES.sub(lambda found: rb"\ufffd" if found["half"] else found[0], text)
