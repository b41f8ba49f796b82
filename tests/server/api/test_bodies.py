"""Bodies of requests that are not quite JSON."""

from typing import Any

import msgspec
import pytest

from pyggml_server.api.bodies import decode_body

ANY: Any = msgspec.json.Decoder(Any)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (rb'"half \ud83d"', "half \ufffd"),
        (rb'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
        (rb'"\uDE00\uD83D \u00e9"', "\ufffd\ufffd \xe9"),
        (rb'"\\ud83d \udfff"', "\\ud83d \ufffd"),
        (b'"a\xff\xc3"', "a\ufffd\ufffd"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
    ],
)
def test_text_that_is_not_unicode(body: bytes, text: str) -> None:
    """As Go's decoder has it: what is no character becomes U+FFFD."""
    assert decode_body(ANY, body) == text


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000])
def test_deep_nesting(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError, match="nested too deeply"):
        decode_body(ANY, body)


@pytest.mark.parametrize("body", [b"{", b'{"a":NaN}', b"\xff", rb'"\u12"'])
def test_what_is_no_json_stays_refused(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError, match=r"JSON is malformed|truncated"):
        decode_body(ANY, body)
