"""Each algorithm on a vocabulary small enough to check by hand."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyggml.errors import TokenizerError
from pyggml.tokenizer import Tokenizer

from . import synthetic

BPE = Tokenizer.from_metadata(synthetic.bpe())
SPM = Tokenizer.from_metadata(synthetic.spm())
WORDPIECE = Tokenizer.from_metadata(synthetic.wordpiece())
UNIGRAM = Tokenizer.from_metadata(synthetic.unigram())
RWKV = Tokenizer.from_metadata(synthetic.rwkv())
ALL = {"bpe": BPE, "spm": SPM, "wordpiece": WORDPIECE, "unigram": UNIGRAM, "rwkv": RWKV}

every_kind = pytest.mark.parametrize("tokenizer", ALL.values(), ids=ALL.keys())


def texts(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    return [tokenizer.token_text(id) for id in ids]


def test_bpe_merges_by_rank_inside_words() -> None:
    assert texts(BPE, BPE.encode("hello world")) == ["hello", "Ġworld"]
    assert texts(BPE, BPE.encode("hellhe lloworld")) == ["hell", "he", "Ġ", "ll", "o", "w", "or", "ld"]


def test_bpe_merge_of_unknown_parts_is_ignored() -> None:
    meta = synthetic.bpe()
    merges = meta["tokenizer.ggml.merges"]
    assert isinstance(merges, list)
    tokenizer = Tokenizer.from_metadata(meta | {"tokenizer.ggml.merges": ["zz yy", "broken", *merges]})
    assert texts(tokenizer, tokenizer.encode("hello")) == ["hello"]


def test_bpe_takes_a_whole_word_without_merges_where_the_kind_says_so() -> None:
    meta = synthetic.bpe(merges=["h e"])
    assert texts(*(lambda t: (t, t.encode("hello")))(Tokenizer.from_metadata(meta))) == ["he", "l", "l", "o"]
    taken_whole = Tokenizer.from_metadata(meta | {"tokenizer.ggml.pre": "llama-bpe"})
    assert texts(taken_whole, taken_whole.encode("hello", add_special=False)) == ["hello"]


def test_bpe_without_merges_is_an_error_except_where_ids_are_ranks() -> None:
    meta = synthetic.bpe()
    del meta["tokenizer.ggml.merges"]
    with pytest.raises(TokenizerError, match=r"tokenizer\.ggml\.merges is missing"):
        Tokenizer.from_metadata(meta)
    ranked = Tokenizer.from_metadata(meta | {"tokenizer.ggml.pre": "kimi-k2"})
    assert texts(ranked, ranked.encode("hello world")) == ["hello", "Ġworld"]


def test_spm_prefers_the_best_score_and_falls_back_to_bytes() -> None:
    assert texts(SPM, SPM.encode("hello world")) == ["<s>", "▁hello", "▁world"]
    assert texts(SPM, SPM.encode("é", add_special=False)) == ["▁", "<0xC3>", "<0xA9>"]
    assert texts(SPM, SPM.encode("held", add_special=False)) == ["▁hel", "d"]


def test_spm_puts_a_space_before_each_stretch_of_text() -> None:
    assert texts(SPM, SPM.encode("hello<|user|>hello")) == ["<s>", "▁hello", "<|user|>", "▁hello"]
    bare = Tokenizer.from_metadata(synthetic.spm(add_space_prefix=False))
    assert texts(bare, bare.encode("hello", add_special=False)) == ["h", "el", "lo"]
    assert bare.decode(bare.encode(" hello")) == " hello"


def test_spm_text_never_becomes_a_control_token_by_merging() -> None:
    ids = SPM.encode("</s><s>", parse_special=False, add_special=False)
    assert not set(ids) & SPM.special_ids
    assert SPM.decode(ids) == "</s><s>"


def test_wordpiece_matches_greedily_inside_words() -> None:
    assert texts(WORDPIECE, WORDPIECE.encode("Hello, UNAFFABLE worldly!")) == [
        "[CLS]", "▁hello", "[UNK]", "▁un", "aff", "able", "[UNK]", "▁!", "[SEP]",
    ]  # fmt: skip
    assert WORDPIECE.decode(WORDPIECE.encode("hello world")) == "hello world"
    assert texts(WORDPIECE, WORDPIECE.encode("世aa", add_special=False)) == ["▁世", "▁a", "a"]


def test_wordpiece_strips_accents_only_when_it_lowers_case() -> None:
    assert texts(WORDPIECE, WORDPIECE.encode("héllo", add_special=False)) == ["▁hello"]
    cased = Tokenizer.from_metadata(synthetic.wordpiece(**{"normalizer.lowercase": False}))
    assert texts(cased, cased.encode("hello Hello héllo", add_special=False)) == ["▁hello", "[UNK]", "[UNK]"]


def test_unigram_takes_the_most_probable_segmentation() -> None:
    assert texts(UNIGRAM, UNIGRAM.encode("hello  worlds")) == ["▁hello", "▁", "▁world", "s", "</s>"]
    squeezing = Tokenizer.from_metadata(synthetic.unigram(remove_extra_whitespaces=True))
    assert texts(squeezing, squeezing.encode("  hello  worlds ", add_special=False)) == ["▁hello", "▁world", "s"]
    assert texts(UNIGRAM, UNIGRAM.encode("hello xyz", add_special=False)) == ["▁hello", "▁", "<unk>"]


def test_unigram_text_is_a_control_token_only_when_parsed() -> None:
    plain = UNIGRAM.encode("hello</s>", parse_special=False, add_special=False)
    assert texts(UNIGRAM, plain) == ["▁hello", "<", "/", "s", ">"]
    assert texts(UNIGRAM, UNIGRAM.encode("hello</s>", add_special=False)) == ["▁hello", "</s>"]


def test_rwkv_takes_the_longest_match() -> None:
    assert texts(RWKV, RWKV.encode("hello world\n\né中")) == [
        "hello wor", "l", "d", "\\n\\n", "é", "\\xe4\\xb8", "\\xad",
    ]  # fmt: skip
    assert texts(RWKV, RWKV.encode("<s>he")) == ["<s>", "he"]
    assert texts(RWKV, RWKV.encode("<s>", parse_special=False)) == ["<", "s", ">"]
    assert RWKV.decode(RWKV.encode("\\ and \t")) == "\\ and \t"


def test_gemma4_merges_raw_text_with_escaped_spaces() -> None:
    tokens = [("<bos>", synthetic.CONTROL, 0.0), ("<eos>", synthetic.CONTROL, 0.0)]
    tokens += [(f"<0x{byte:02X}>", synthetic.BYTE, 0.0) for byte in range(256)]
    tokens += [(text, synthetic.NORMAL, 0.0) for text in ["▁", "a", "\n", "\n\n", "a▁", "a▁a"]]
    meta = synthetic.make("gemma4", tokens, merges=["a ▁", "a▁ a", "\n \n"], bos_token_id=0, eos_token_id=1)
    tokenizer = Tokenizer.from_metadata(meta)
    ids = tokenizer.encode("a a\n\né")
    assert texts(tokenizer, ids) == ["<bos>", "a▁a", "\n\n", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(ids) == "a a\n\né"


def test_digits_are_grouped_from_the_right() -> None:
    alphabet = [(text, synthetic.NORMAL, 0.0) for text in synthetic.byte_alphabet()]
    groups = [(str(n), synthetic.NORMAL, 0.0) for n in (12, 34, 123, 234, 567)]
    merges = ["1 2", "3 4", "12 3", "2 34", "5 6", "56 7"]
    for pre in ("superbpe", "afmoe", "tiny_aya"):
        meta = synthetic.make("gpt2", alphabet + [*groups, ("56", synthetic.NORMAL, 0.0)], merges=merges, pre=pre)
        tokenizer = Tokenizer.from_metadata(meta)
        assert texts(tokenizer, tokenizer.encode("1234567")) == ["1", "234", "567"], pre


@every_kind
@pytest.mark.parametrize("text", ["a" * 100_000, " " * 100_000, "\n" * 100_000, "7" * 100_000, "🙂" * 25_000])
def test_no_input_takes_long(tokenizer: Tokenizer, text: str) -> None:
    start = time.process_time()
    ids = tokenizer.encode(text)
    assert len(ids) <= len(text.encode()) + 2
    assert time.process_time() - start < 5


@every_kind
def test_empty_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("", add_special=False) == []
    assert tokenizer.decode([]) == ""


@every_kind
def test_surrogates_do_not_raise(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("a\ud800") == tokenizer.encode("a\ufffd")
    assert tokenizer.encode("\ud83d\ude42") == tokenizer.encode("🙂")


@every_kind
def test_long_and_short_texts_take_the_same_path(tokenizer: Tokenizer) -> None:
    """Long texts go through another call of the library, which lets other threads run."""
    text = "hello world " * 400
    once = tokenizer.encode("hello world " * 2, add_special=False)
    assert tokenizer.encode(text, add_special=False)[:4] == once[:4]
    assert tokenizer.decode(tokenizer.encode(text)).split() == text.split()


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_byte_level_bpe_loses_nothing(text: str) -> None:
    ids = BPE.encode(text, add_special=False, parse_special=False)
    assert BPE.decode_bytes(ids) == text.encode()
    assert not set(ids) & BPE.special_ids


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_rwkv_loses_nothing(text: str) -> None:
    assert RWKV.decode_bytes(RWKV.encode(text, parse_special=False)) == text.encode()


@given(st.text(st.characters(exclude_characters="▁", exclude_categories=["Cs"])))
@settings(max_examples=100, deadline=None)
def test_spm_loses_nothing_but_its_own_space(text: str) -> None:
    ids = SPM.encode(text, add_special=False, parse_special=False)
    # "<b>" is user-defined: it is found in any text, and a space goes before what follows it.
    if "<b>" not in text:
        assert SPM.decode_bytes(ids) == (b" " + text.encode() if text else b"")
        assert SPM.decode(ids) == text


@given(st.text(), st.sampled_from(sorted(ALL)))
@settings(max_examples=100, deadline=None)
def test_any_text_gives_ids_in_range(text: str, kind: str) -> None:
    tokenizer = ALL[kind]
    assert all(0 <= id < tokenizer.n_vocab for id in tokenizer.encode(text))
