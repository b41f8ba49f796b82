"""A matcher's life: masks, accepting, going back, the end, computing ahead."""

import random
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyggml.errors import ClosedError, GrammarError, ParameterError
from pyggml.grammar import Grammar, GrammarCompiler, GrammarLimits, Matcher
from pyggml.tokenizer import Tokenizer

from .walks import SPECIAL, allowed, byte_tokens, small_tokenizer

END, IM_END, FIM = SPECIAL.index("<|endoftext|>"), SPECIAL.index("<|im_end|>"), SPECIAL.index("<|fim_pad|>")
SCHEMA = Grammar.json_schema(
    {
        "type": "object",
        "properties": {"firstname": {"enum": ["ab", "abc"]}, "age": {"type": "integer"}},
        "required": ["firstname", "age"],
        "additionalProperties": False,
    }
)


def texts(tokenizer: Tokenizer, tokens: list[int]) -> list[bytes]:
    return [tokenizer.token_bytes(token) for token in tokens]


def test_masks_of_a_short_text(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    matcher = compiler.compile(Grammar.regex("a(bc|d)?"))
    assert texts(tokenizer, allowed(matcher.mask())) == [b"a", b"ab", b"abc"]
    assert not matcher.is_accepting
    matcher.accept(byte_tokens(tokenizer, "a")[0])
    assert matcher.is_accepting and not matcher.is_stopped
    assert set(texts(tokenizer, allowed(matcher.mask()))) == {b"b", b"d", b"<|endoftext|>", b"<|im_end|>"}
    assert matcher.try_accept(byte_tokens(tokenizer, "bcx")) == 2
    assert matcher.is_stopped and matcher.is_accepting and matcher.n_tokens == 3
    assert allowed(matcher.mask()) == [END, IM_END]


def test_ends_of_fill_in_the_middle_are_no_end(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    assert FIM in tokenizer.eog_ids
    matcher = compiler.compile(Grammar.regex("a?"))
    assert {END, IM_END} <= set(allowed(matcher.mask()))
    assert FIM not in allowed(matcher.mask())
    assert matcher.try_accept([FIM]) == 0


@pytest.mark.parametrize("end", [END, IM_END])
def test_the_end(compiler: GrammarCompiler, tokenizer: Tokenizer, end: int) -> None:
    matcher = compiler.compile(Grammar.regex("ab?"))
    with pytest.raises(ParameterError, match=f"token {end} is not allowed"):
        matcher.accept(end)
    matcher.accept(byte_tokens(tokenizer, "a")[0])
    matcher.accept(end)
    assert matcher.is_stopped and matcher.is_accepting and matcher.n_tokens == 2
    assert allowed(matcher.mask()) == [END, IM_END]
    assert matcher.forced() == [] and matcher.n_allowed([end]) == 0
    with pytest.raises(ParameterError, match="is not allowed"):
        matcher.accept(end)
    matcher.rollback(1)
    assert not matcher.is_stopped
    assert matcher.try_accept(byte_tokens(tokenizer, "b")) == 1


def test_a_refused_token_changes_nothing(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    matcher = compiler.compile(Grammar.regex("ab"))
    before = matcher.mask().copy()
    for token in (byte_tokens(tokenizer, "x")[0], 1, -1, 10**9, tokenizer.n_vocab):
        with pytest.raises(ParameterError, match=f"token {token} "):
            matcher.accept(token)
        assert (matcher.mask() == before).all()
    assert matcher.try_accept(byte_tokens(tokenizer, "ab")) == 2


def test_texts_of_special_tokens_are_written_as_text(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    matcher = compiler.compile(Grammar.choice(["<|im_end|>", "<tool>"]))
    assert b"<tool>" in texts(tokenizer, allowed(matcher.mask()))  # user-defined: it is text
    assert IM_END not in allowed(matcher.mask())
    assert matcher.n_allowed(byte_tokens(tokenizer, "<|im_end|>")) == 10


def test_lark_can_ask_for_special_tokens(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    matcher = compiler.compile(Grammar.lark('start: "a" <|im_start|> "b"'))
    matcher.accept(byte_tokens(tokenizer, "a")[0])
    assert allowed(matcher.mask()) == [SPECIAL.index("<|im_start|>")]


def test_forced_tokens_are_the_tokenizer_s(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    matcher = compiler.compile(Grammar.regex('true[0-9]|true"'))
    forced = matcher.forced()
    assert texts(tokenizer, forced) == [b"true"]
    assert matcher.try_accept(forced) == len(forced)
    assert matcher.forced() == []
    matcher.accept(byte_tokens(tokenizer, '"')[0])
    assert matcher.is_stopped and matcher.forced() == []


def test_whole_text_is_forced(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    matcher = compiler.compile(Grammar.choice(["abc12true"]))
    assert texts(tokenizer, matcher.forced()) == [b"abc", b"12", b"true"]


def test_n_allowed_changes_nothing(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    matcher = compiler.compile(Grammar.regex("ab?"))
    a, b = byte_tokens(tokenizer, "ab")
    assert matcher.n_allowed([a, b, b]) == 2
    assert matcher.n_allowed([a, END, b]) == 2
    assert matcher.n_allowed([a, b, END]) == 3
    assert matcher.n_allowed([b]) == matcher.n_allowed([END]) == matcher.n_allowed([]) == 0
    assert matcher.n_tokens == 0 and matcher.try_accept([a, b, END]) == 3


def test_rollback_needs_tokens(compiler: GrammarCompiler) -> None:
    matcher = compiler.compile(Grammar.regex("ab"))
    for n in (1, -1):
        with pytest.raises(ParameterError, match="cannot take back"):
            matcher.rollback(n)


@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_any_way_to_a_place_gives_the_same_mask(data: st.DataObject) -> None:
    """Accepting, going back, copies, drafts and computing ahead against a fresh matcher fed the same tokens."""
    compiler, tokenizer = _shared()
    matcher, path = compiler.compile(SCHEMA), list[int]()
    for _ in range(data.draw(st.integers(1, 12))):
        action = data.draw(st.sampled_from(["accept", "accept", "back", "copy", "prefetch", "draft", "wrong"]))
        tokens = allowed(matcher.mask())
        if action == "accept" and not (path and path[-1] in (END, IM_END)):
            path.append(data.draw(st.sampled_from(tokens)))
            matcher.accept(path[-1])
        elif action == "back":
            n = data.draw(st.integers(0, len(path)))
            matcher.rollback(n)
            del path[len(path) - n :]
        elif action == "copy":
            matcher = matcher.copy()
        elif action == "prefetch":
            matcher.prefetch()
        elif action == "draft":
            draft = data.draw(st.lists(st.sampled_from([*tokens, *byte_tokens(tokenizer, '{"a')]), max_size=4))
            matcher.prefetch(draft)
            path += draft[: matcher.try_accept(draft)]
        elif action == "wrong":
            assert matcher.try_accept([SPECIAL.index("<|im_start|>")]) == 0
        fresh = compiler.compile(SCHEMA)
        assert fresh.try_accept(path) == len(path) == matcher.n_tokens
        np.testing.assert_array_equal(matcher.mask(), fresh.mask())
        assert (matcher.is_accepting, matcher.is_stopped) == (fresh.is_accepting, fresh.is_stopped)
        assert matcher.forced() == fresh.forced()


_COMPILERS: list[tuple[GrammarCompiler, Tokenizer]] = []


def _shared() -> tuple[GrammarCompiler, Tokenizer]:
    """Hypothesis wants no fixture of function scope; one compiler is enough."""
    if not _COMPILERS:
        tokenizer = small_tokenizer()
        _COMPILERS.append((GrammarCompiler(tokenizer), tokenizer))
    return _COMPILERS[0]


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    for compiler, _ in _COMPILERS:
        compiler.close()


def test_masks_of_a_draft_are_computed_at_once(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    matcher = compiler.compile(Grammar.regex("[a-c]{3}[0-9]+"))
    draft = byte_tokens(tokenizer, "abc")
    matcher.prefetch(draft)
    matcher.mask()
    counted = _count_masks(matcher)
    for n, token in enumerate(draft):
        matcher.accept(token)
        assert byte_tokens(tokenizer, "abc1")[n + 1] in allowed(matcher.mask())
    assert counted == []
    matcher.accept(byte_tokens(tokenizer, "1")[0])
    matcher.mask()
    assert len(counted) == 1


def _count_masks(matcher: Matcher) -> list[int]:
    """Counts the masks that are computed from now on."""
    counted: list[int] = []
    fill = matcher._fill

    def count() -> None:
        counted.append(1)
        fill()

    matcher._fill = count  # type: ignore[method-assign]
    return counted


def test_prefetch_computes_on_another_thread(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    matcher = compiler.compile(SCHEMA)
    threads: list[str] = []
    fill = matcher._fill

    def note() -> None:
        threads.append(threading.current_thread().name)
        fill()

    matcher._fill = note  # type: ignore[method-assign]
    matcher.accept(byte_tokens(tokenizer, "{")[0])
    matcher.prefetch()
    matcher.mask()
    assert matcher.is_ready
    assert len(threads) == 1 and threads[0].startswith("pyggml-grammar")


def test_many_matchers_at_once(tokenizer: Tokenizer) -> None:
    with GrammarCompiler(tokenizer, n_workers=3) as compiler:
        matchers = [compiler.compile(SCHEMA) for _ in range(8)]
        rng = random.Random(1)
        for step in range(12):
            compiler.prefetch(matchers)
            for n, matcher in enumerate(matchers):
                if n == 3 and step == 5:
                    matcher.accept(allowed(matcher.mask())[0])
                    continue
                matcher.accept(rng.choice(allowed(matcher.mask())))
                if matcher.is_stopped:
                    matcher.rollback(matcher.n_tokens)
        assert all(matcher.n_tokens for matcher in matchers)
        compiler.prefetch([])


def test_n_vocab_beyond_the_vocabulary(tokenizer: Tokenizer) -> None:
    with GrammarCompiler(tokenizer, n_vocab=tokenizer.n_vocab + 77) as compiler:
        matcher = compiler.compile(Grammar.regex(r"(?s:.)*"))
        assert matcher.mask().shape == (-(-(tokenizer.n_vocab + 77) // 32),)
        assert matcher.mask().dtype == np.int32
        assert max(allowed(matcher.mask())) < tokenizer.n_vocab
        assert matcher.try_accept([tokenizer.n_vocab + 3]) == 0
        matcher.accept(END)
        assert matcher.mask().shape == (-(-(tokenizer.n_vocab + 77) // 32),)


def test_options_out_of_range(tokenizer: Tokenizer) -> None:
    with pytest.raises(ParameterError, match="n_vocab 5 is less"):
        GrammarCompiler(tokenizer, n_vocab=5)
    with pytest.raises(ParameterError, match="n_workers"):
        GrammarCompiler(tokenizer, n_workers=0)
    with pytest.raises(ParameterError, match="lexer_fuel"):
        GrammarLimits(lexer_fuel=0)


def test_a_closed_compiler(tokenizer: Tokenizer) -> None:
    with GrammarCompiler(tokenizer) as compiler:
        matcher = compiler.compile(Grammar.regex("ab"))
    compiler.close()
    for use in (lambda: compiler.compile(Grammar.regex("a")), compiler.warm, lambda: compiler.prefetch([matcher])):
        with pytest.raises(ClosedError):
            use()
    matcher.accept(byte_tokens(tokenizer, "a")[0])
    matcher.prefetch()
    assert matcher.mask().any()


def test_a_grammar_that_gets_too_costly_on_the_way(tokenizer: Tokenizer) -> None:
    with GrammarCompiler(tokenizer, limits=GrammarLimits(lexer_states=200)) as compiler:
        matcher, other = compiler.compile(Grammar.regex("(a|b)*a(a|b){11}")), compiler.compile(Grammar.regex("c*"))
        rng = random.Random(0)
        a, b = byte_tokens(tokenizer, "ab")
        with pytest.raises(GrammarError, match="too many states"):
            for _ in range(3000):
                compiler.prefetch([matcher, other])
                matcher.mask()
                matcher.accept(rng.choice([a, b]))
        with pytest.raises(GrammarError, match="too many states"):
            matcher.mask()
        with pytest.raises(GrammarError, match="too many states"):
            matcher.rollback(1)
        assert other.mask().any()
