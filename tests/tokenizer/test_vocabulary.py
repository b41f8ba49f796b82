"""What is read from metadata: special tokens, flags, types, and the errors for what is broken."""

import time
from pathlib import Path

import numpy as np
import pytest

from pyggml.errors import TokenizerError
from pyggml.tokenizer import Tokenizer, TokenType
from pyggml.tokenizer.pretokenizers import PRE_TOKENIZERS

from . import synthetic


def build(meta: synthetic.Meta, **keys: object) -> Tokenizer:
    return Tokenizer.from_metadata(meta | {f"tokenizer.ggml.{key}": value for key, value in keys.items()})


def test_every_named_pre_tokenizer_builds() -> None:
    assert len(PRE_TOKENIZERS) == 91
    for name in PRE_TOKENIZERS:
        tokenizer = Tokenizer.from_metadata(synthetic.bpe(pre=name))
        ids = tokenizer.encode("hello world 12345 don't 世界\n\n", add_special=False)
        assert all(0 <= id < tokenizer.n_vocab for id in ids), name


@pytest.mark.parametrize("name", [name for name, kind in PRE_TOKENIZERS.items() if kind.byte_level])
def test_every_byte_level_kind_loses_nothing(name: str) -> None:
    text = "Hello world, it's 1234567 o'clock!  \r\n\tЧто 世界 ㅎ naïve ǅx é\u0301 🙂 \u00a0 x²  \n\n end "
    tokenizer = Tokenizer.from_metadata(synthetic.bpe(pre=name))
    assert tokenizer.decode_bytes(tokenizer.encode(text, add_special=False)) == text.encode()


@pytest.mark.parametrize("text", ["\u00a0" * 20_000 + "1", " " * 20_000 + "a", "7" * 20_000 + "a", "Aa" * 10_000])
def test_no_kind_takes_time_in_the_square_of_a_run(text: str) -> None:
    for name in {kind: name for name, kind in PRE_TOKENIZERS.items()}.values():
        tokenizer = Tokenizer.from_metadata(synthetic.bpe(pre=name))
        start = time.process_time()
        tokenizer.encode(text)
        assert time.process_time() - start < 1, name


def test_unknown_pre_tokenizer_is_named() -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.ggml\.pre is .nonesuch."):
        build(synthetic.bpe(), pre="nonesuch")


def test_missing_pre_tokenizer_means_default() -> None:
    meta = synthetic.bpe()
    del meta["tokenizer.ggml.pre"]
    text = "hello<=world 12345"
    assert Tokenizer.from_metadata(meta).encode(text) == build(meta, pre="default").encode(text)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model", "", "tokenizer.ggml.model is missing"),
        ("model", "none", "without a vocabulary"),
        ("model", "plamo2", "'plamo2'"),
        ("model", 3, "tokenizer.ggml.model must be a string"),
        ("tokens", [], "tokenizer.ggml.tokens is missing or empty"),
        ("tokens", ["a", 3], "tokenizer.ggml.tokens must be an array of strings"),
        ("tokens", "abc", "tokenizer.ggml.tokens must be an array of strings"),
        ("token_type", [1, 1], "tokenizer.ggml.token_type holds 2 values"),
        ("token_type", ["a"] * 300, "tokenizer.ggml.token_type must be an array of numbers"),
        ("scores", [float("nan")] * 300, "tokenizer.ggml.scores holds"),
        ("eos_token_id", "2", "tokenizer.ggml.eos_token_id must be an integer"),
        ("add_bos_token", 1, "tokenizer.ggml.add_bos_token must be a boolean"),
    ],
)
def test_broken_metadata_is_named(key: str, value: object, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        build(synthetic.bpe(), **{key: value})


def charsmap(root: int) -> np.ndarray:
    """A table of 256 units, of which the first is ``root``, and one replacement."""
    return np.frombuffer(np.array([1024, root] + [0] * 255, dtype="<u4").tobytes() + b"x\0", dtype=np.uint8)


@pytest.mark.parametrize(
    "data", [[1, 2, 3], charsmap(0)[:900], charsmap(0)[:-1], charsmap(1 << 20), charsmap((1 << 31) + 1)]
)
def test_broken_charsmap_is_named(data: object) -> None:
    with pytest.raises(TokenizerError, match="precompiled_charsmap"):
        build(synthetic.unigram(), precompiled_charsmap=np.array(data, dtype=np.uint8))


def test_a_charsmap_that_maps_nothing_changes_nothing() -> None:
    tokenizer = build(synthetic.unigram(), precompiled_charsmap=charsmap(0))
    assert tokenizer.encode("hello worlds") == build(synthetic.unigram()).encode("hello worlds")


def test_arrays_may_be_numpy() -> None:
    meta = synthetic.spm()
    arrays = {
        "token_type": np.array(meta["tokenizer.ggml.token_type"], dtype=np.int32),
        "scores": np.array(meta["tokenizer.ggml.scores"], dtype=np.float32),
        "bos_token_id": np.uint32(1),
        "add_bos_token": np.bool_(False),
    }
    assert build(meta, **arrays).encode("hello world") == build(meta, add_bos_token=False).encode("hello world")


def test_special_ids_come_from_keys_then_from_texts() -> None:
    tokenizer = build(synthetic.bpe())
    assert (tokenizer.eos_id, tokenizer.eot_id) == (0, 2)
    assert tokenizer.eog_ids == {0, 2}
    assert build(synthetic.bpe(), eot_token_id=1).eog_ids == {0, 1, 2}
    assert build(synthetic.bpe(), eos_token_ids=[1, 99_999]).eog_ids == {0, 1, 2}
    with pytest.raises(TokenizerError, match="eos_token_ids must be an array of integers"):
        build(synthetic.bpe(), eos_token_ids=[0.5])
    assert tokenizer.special_ids == {0, 1, 2}
    assert tokenizer.is_control(2) and not tokenizer.is_control(3)
    assert tokenizer.token_type(3) is TokenType.USER_DEFINED
    assert tokenizer.bos_id is None and tokenizer.fim_prefix_id is None
    assert tokenizer.token_id("<|im_end|>") == 2 and tokenizer.token_id("nonesuch") is None


def test_an_id_out_of_range_counts_as_absent() -> None:
    assert build(synthetic.bpe(), eos_token_id=10**6).eos_id is None
    assert build(synthetic.bpe(), bos_token_id=2**32 - 1).bos_id is None


def test_end_texts_are_control_tokens_whatever_the_file_says() -> None:
    tokens = [("<|im_end|>", synthetic.NORMAL, 0.0), ("<|fim_prefix|>", synthetic.USER, 0.0)]
    tokenizer = Tokenizer.from_metadata(synthetic.make("gpt2", tokens, merges=[]))
    assert tokenizer.is_control(0) and tokenizer.is_control(1)
    assert tokenizer.fim_prefix_id == 1 and tokenizer.eog_ids == {0}


def test_harmony_shows_its_channels_and_goes_on_after_end() -> None:
    texts = ["<|return|>", "<|call|>", "<|end|>", "<|channel|>"]
    tokens = [(text, synthetic.CONTROL, 0.0) for text in texts]
    tokenizer = Tokenizer.from_metadata(synthetic.make("gpt2", tokens, merges=[], eos_token_id=0))
    assert tokenizer.eog_ids == {0, 1}
    assert tokenizer.special_ids == {0, 1}
    assert tokenizer.decode([2, 3]) == "<|end|><|channel|>"


def test_bos_and_eos_follow_kind_then_flags() -> None:
    spm = synthetic.spm()
    assert build(spm).encode("")[:1] == [1]
    assert build(spm, add_bos_token=False).encode("") == []
    assert build(spm, add_eos_token=True).encode("") == [1, 2]
    assert build(spm).adds_bos and not build(spm).adds_eos
    bert = build(synthetic.wordpiece(), add_bos_token=False)
    assert bert.encode("") == [2, 3]
    assert (bert.cls_id, bert.sep_id, bert.mask_id, bert.pad_id, bert.unk_id) == (2, 3, 4, 0, 1)
    assert build(synthetic.unigram()).encode("") == [1]
    assert build(synthetic.rwkv(), add_bos_token=True, bos_token_id=0).encode("") == []
    assert build(synthetic.bpe(), pre="llama-bpe", bos_token_id=1).encode("") == [1]
    assert build(synthetic.bpe(), pre="gemma4", bos_token_id=1, add_bos_token=False).encode("") == [1]


def test_phi3_swallows_space_after_special_tokens() -> None:
    meta = synthetic.spm() | {"general.name": "Phi-3 mini"}
    tokenizer = Tokenizer.from_metadata(meta)
    ids = tokenizer.encode("<|user|> \n hello", add_special=False)
    assert [tokenizer.token_text(id) for id in ids] == ["<|user|>", "▁hello"]


def test_invalid_utf8_in_the_vocabulary_keeps_its_bytes() -> None:
    meta = synthetic.spm()
    tokens = meta["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    tokens[-1] = b"\xff\xfe".decode("utf-8", "surrogateescape")
    tokenizer = Tokenizer.from_metadata(meta)
    assert tokenizer.token_bytes(tokenizer.n_vocab - 1) == b"\xff\xfe"
    assert tokenizer.decode(tokenizer.encode("hello")) == "hello"


def test_duplicate_and_empty_tokens_are_tolerated() -> None:
    tokens = [("a", synthetic.NORMAL, 0.0), ("a", synthetic.NORMAL, 0.0), ("", synthetic.NORMAL, 0.0)]
    tokenizer = Tokenizer.from_metadata(synthetic.make("gpt2", tokens, merges=[]))
    assert tokenizer.encode("a") == [0]
    assert tokenizer.token_text(2) == "[EMPTY_2]"


@pytest.mark.parametrize("id", [-1, 10**6])
def test_an_id_outside_the_vocabulary_is_an_error(id: int) -> None:
    tokenizer = build(synthetic.bpe())
    for call in (tokenizer.token_bytes, tokenizer.token_text, tokenizer.token_type, tokenizer.is_control):
        with pytest.raises(TokenizerError, match=f"token id {id} is not in the vocabulary of"):
            call(id)
    with pytest.raises(TokenizerError):
        tokenizer.decode([id])


def test_the_cache_gives_the_same_tokenizer_and_survives_damage(tmp_path: Path) -> None:
    meta = synthetic.spm()
    expected = Tokenizer.from_metadata(meta).encode("hello world held")
    folder = tmp_path / "cache"
    for content in (None, b"", b"short", b"\0" * 4096):
        if content is not None:
            (path,) = folder.iterdir()
            path.write_bytes(content)
        assert Tokenizer.from_metadata(meta, cache_dir=folder).encode("hello world held") == expected
        (path,) = folder.iterdir()
        assert path.stat().st_size % 8 == 0 and path.stat().st_size > 32


def test_the_cache_is_used_and_names_the_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Tokenizer.from_metadata(synthetic.spm(), cache_dir=tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the merges were computed again")

    monkeypatch.setattr("pyggml.tokenizer.cache.merge_pairs", refuse)
    Tokenizer.from_metadata(synthetic.spm(add_bos_token=False), cache_dir=tmp_path)
    changed = synthetic.spm()
    scores = changed["tokenizer.ggml.scores"]
    assert isinstance(scores, list)
    scores[-5] = 1.0
    with pytest.raises(AssertionError, match="computed again"):
        Tokenizer.from_metadata(changed, cache_dir=tmp_path)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    tokenizer = Tokenizer.from_metadata(synthetic.spm(), cache_dir=blocked / "below")
    assert tokenizer.decode(tokenizer.encode("hello")) == "hello"
