"""Text from tokens as they arrive."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyggml.errors import TokenizerError
from pyggml.tokenizer import StreamDecoder, Tokenizer

from . import synthetic

TOKENIZERS = {
    "bpe": Tokenizer.from_metadata(synthetic.bpe()),
    "spm": Tokenizer.from_metadata(synthetic.spm()),
    "wordpiece": Tokenizer.from_metadata(synthetic.wordpiece()),
    "unigram": Tokenizer.from_metadata(synthetic.unigram()),
    "rwkv": Tokenizer.from_metadata(synthetic.rwkv()),
}


def test_a_character_comes_out_whole() -> None:
    tokenizer = TOKENIZERS["bpe"]
    stream = StreamDecoder(tokenizer)
    ids = tokenizer.encode("a🙂b")
    assert [stream.push(id) for id in ids] == ["a", "", "", "", "🙂", "b"]
    assert stream.flush() == ""


def test_pending_tells_of_an_unfinished_character() -> None:
    tokenizer = TOKENIZERS["bpe"]
    stream = StreamDecoder(tokenizer)
    first, *_ = tokenizer.encode("é")
    assert not stream.pending
    assert stream.push(first) == "" and stream.pending
    assert stream.flush() == "\ufffd" and not stream.pending


def test_bytes_that_are_not_utf8_become_replacement_characters() -> None:
    tokenizer = TOKENIZERS["spm"]
    stream = StreamDecoder(tokenizer, text_start=False)
    bad, good = tokenizer.token_id("<0xFF>"), tokenizer.token_id("a")
    assert bad is not None and good is not None
    assert stream.push(bad) + stream.push(good) + stream.flush() == "\ufffda"


def test_the_leading_space_goes_only_at_the_start_of_a_text() -> None:
    tokenizer = TOKENIZERS["spm"]
    ids = tokenizer.encode("hello world")
    assert "".join(map(StreamDecoder(tokenizer).push, ids)) == "hello world"
    assert "".join(map(StreamDecoder(tokenizer, text_start=False).push, ids)) == " hello world"
    assert "".join(map(StreamDecoder(tokenizer, skip_special=False).push, ids)) == "<s> hello world"


def test_an_id_outside_the_vocabulary_is_an_error() -> None:
    with pytest.raises(TokenizerError, match="token id 99999"):
        StreamDecoder(TOKENIZERS["bpe"]).push(99999)


@given(st.sampled_from(sorted(TOKENIZERS)), st.data(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_pieces_join_to_the_decoded_text(kind: str, data: st.DataObject, skip_special: bool) -> None:
    tokenizer = TOKENIZERS[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.n_vocab - 1)))
    stream = StreamDecoder(tokenizer, skip_special=skip_special)
    pieces = [stream.push(id) for id in ids] + [stream.flush()]
    assert "".join(pieces) == tokenizer.decode(ids, skip_special=skip_special)
