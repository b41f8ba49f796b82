"""Frames: whatever the pieces in which bytes arrive, the messages are the same."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyggml_server.protocol import (
    MAX_FRAME,
    Cancel,
    Done,
    FrameError,
    FrameReader,
    Generate,
    GrammarText,
    LogProbs,
    Text,
    ToRunner,
    ToService,
    pack,
)

MESSAGES = [
    Text(1, [1, 2], "é\n", [LogProbs(1, -0.5, [(2, -1.0)])]),
    Done(1, "stop", stop_string="###", eval_tokens=7),
    Text(2**40, [], ""),
]


@given(st.lists(st.integers(1, 40), max_size=60))
def test_any_pieces_give_the_same_messages(lengths: list[int]) -> None:
    data, reader, found = pack(MESSAGES), FrameReader(ToService), []
    for length in lengths:
        found += reader.feed(data[:length])
        data = data[length:]
    assert found + reader.feed(data) == MESSAGES


def test_every_field_of_a_request_survives() -> None:
    sent = Generate(
        3, [1, 2, 3], {"temperature": 0.5, "logit_bias": {7: -1.0}}, max_tokens=4, stop=["\n"], logprobs=3,
        grammar=GrammarText("gbnf", "root ::= 'a'"), adapters={0: 0.5}, priority=-1, n_ctx=64,
    )  # fmt: skip
    (found,) = FrameReader(ToRunner).feed(pack([sent]))
    assert found == sent


@pytest.mark.parametrize(
    "body",
    [b"\x00", b"\x81\xa4type\xa7unknown", b"\x82\xa4type\xa6cancel\xa2id\xa1x", b"\xc1", b""],
    ids=["no map", "unknown type", "wrong field", "no msgpack", "empty"],
)
def test_nonsense_is_told(body: bytes) -> None:
    with pytest.raises(FrameError, match="not understood"):
        FrameReader(ToRunner).feed(struct.pack("<I", len(body)) + body)


def test_long_frames_are_refused_before_they_arrive() -> None:
    with pytest.raises(FrameError, match="too long"):
        FrameReader(ToRunner).feed(struct.pack("<I", MAX_FRAME + 1))
    assert FrameReader(ToRunner).feed(pack([Cancel(1)])) == [Cancel(1)]
