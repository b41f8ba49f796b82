"""Text from a tiny model: pieces, ends, counts."""

import numpy as np
import pytest

from helpers.tiny import TinyModel, prompt
from pyggml.engine import Engine, EngineConfig, Request, measure
from pyggml.errors import ContextFullError, ModelError, ParameterError
from pyggml.sampling import SamplingParams

HOT = SamplingParams(seed=4, temperature=1.5, top_k=0, top_p=1.0)
GREEDY = SamplingParams(temperature=0)


def long_seed(engine: Engine, n: int) -> SamplingParams:
    """A seed whose answer does not end by itself within ``n`` tokens."""
    for seed in range(50):
        params = SamplingParams(seed=seed, temperature=1.5, top_k=0, top_p=1.0)
        generation = engine.generate("hello", params, max_tokens=n)
        generation.text()
        if len(generation.tokens) == n:
            return params
    raise AssertionError("every answer ends early")


def test_pieces_join_to_the_decoded_text(engine: Engine) -> None:
    for seed in range(6):
        generation = engine.generate("hello", SamplingParams(seed=seed, temperature=2.0, top_k=0), max_tokens=40)
        pieces = list(generation)
        decoder_text = engine.tokenizer.decode([*engine.tokenizer.encode("a"), *generation.tokens])
        assert "a" + "".join(piece.text for piece in pieces) == decoder_text
        assert [piece.token for piece in pieces if piece.token is not None] == generation.tokens
        assert all(piece.token is not None for piece in pieces[:-1])


def test_equal_seeds_give_equal_answers(engine: Engine) -> None:
    texts = [engine.generate("hello", HOT, max_tokens=30).text() for _ in range(2)]
    other = engine.generate("hello", SamplingParams(seed=5, temperature=1.5, top_k=0), max_tokens=30).text()
    assert texts[0] == texts[1] != other


def test_the_most_likely_tokens(engine: Engine) -> None:
    ids = prompt(10)
    generation = engine.generate(ids, GREEDY, max_tokens=12)
    generation.text()
    said = list(ids)
    for token in generation.tokens:
        assert token == engine.logits(said)[0].argmax()
        said.append(token)


def test_counts_and_reasons(engine: Engine) -> None:
    params = long_seed(engine, 20)
    engine.reset()
    generation = engine.generate("hello", params, max_tokens=20)
    assert generation.stats.finish_reason is None
    generation.text()
    stats = generation.stats
    n = len(engine.tokenizer.encode("hello"))
    assert (stats.prompt_tokens, stats.cached_tokens, stats.eval_tokens) == (n, 0, 20)
    assert stats.finish_reason == "length" and len(generation.tokens) == 20
    assert stats.prompt_seconds > 0 and stats.eval_seconds > 0 and stats.prompt_rate > 0 and stats.eval_rate > 0
    again = engine.generate("hello", params, max_tokens=1)
    again.text()
    assert again.stats.cached_tokens == n - 1 and again.tokens == generation.tokens[:1]
    assert list(generation) == []  # once only


def test_the_end_of_text_ends_it(engine: Engine) -> None:
    eos = engine.tokenizer.eos_id
    for seed in range(200):
        generation = engine.generate("hello", SamplingParams(seed=seed, temperature=3.0, top_k=0, top_p=1.0))
        text = generation.text()
        if generation.stats.finish_reason == "stop":
            break
    assert generation.stats.finish_reason == "stop"
    assert eos not in generation.tokens and "</s>" not in text
    assert generation.stats.eval_tokens == len(generation.tokens) + 1


def test_the_context_ends_it(llama: TinyModel) -> None:
    with Engine(llama.path, EngineConfig(n_ctx=16, n_threads=1)) as engine:
        generation = engine.generate(prompt(16), GREEDY)
        generation.text()
        assert generation.stats.finish_reason == "length" and len(generation.tokens) == 1
        for seed in range(50):
            generation = engine.generate(prompt(10), SamplingParams(seed=seed))
            generation.text()
            if generation.stats.finish_reason == "length":
                break
        # Six more fit, and the seventh needs no room: nothing follows it.
        assert len(generation.tokens) == 7 and len(engine.history) == 16
        with pytest.raises(ContextFullError, match="17 tokens"):
            engine.generate(prompt(17), GREEDY)


def test_stop_strings_across_tokens(engine: Engine) -> None:
    params = long_seed(engine, 40)
    text = engine.generate("hello", params, max_tokens=40).text()
    for begin in range(0, len(text) - 3, 5):
        stop = text[begin : begin + 3]
        generation = engine.generate("hello", params, max_tokens=40, stop=[stop, "never said"])
        assert generation.text() == text[: text.index(stop)]
        assert generation.stats.finish_reason == "stop"
    generation = engine.generate("hello", params, max_tokens=40, stop=["never said"])
    assert generation.text() == text and generation.stats.finish_reason == "length"


def test_characters_of_several_tokens(engine: Engine) -> None:
    """Bytes are tokens: with everything else penalized away, é comes out whole."""
    tokens = {engine.tokenizer.token_text(i): i for i in range(engine.tokenizer.n_vocab)}
    first, second = tokens["<0xC3>"], tokens["<0xA9>"]
    row = np.zeros(46, np.float32)

    class Script:
        """Says what it is told."""

        def __init__(self, script: list[int]) -> None:
            self.script = iter(script)

        def __call__(self, *args: object) -> np.ndarray:
            row[:] = -100
            row[next(self.script)] = 0
            return row[None]

    def say(script: list[int], **options: int) -> list[tuple[int | None, str]]:
        forced = Script(script)
        engine.scheduler.decoder.run = forced  # type: ignore[method-assign]
        return [(piece.token, piece.text) for piece in engine.generate([3], GREEDY, **options)]  # type: ignore[arg-type]

    e = tokens["e"]
    assert say([e, first, second, 2]) == [(e, "e"), (first, ""), (second, "é")]
    assert say([first, e, 2]) == [(first, ""), (e, "\ufffde")]
    assert say([e, first, 2]) == [(e, "e"), (first, ""), (None, "\ufffd")]
    assert say([e, first], max_tokens=2) == [(e, "e"), (first, ""), (None, "\ufffd")]


def test_generations_may_take_turns(engine: Engine) -> None:
    alone = []
    for text in ("hello", "the ether"):
        generation = engine.generate(text, GREEDY, max_tokens=10)
        generation.text()
        alone.append(generation.tokens)
    together = [engine.generate(text, GREEDY, max_tokens=10) for text in ("hello", "the ether")]
    steps = [iter(generation) for generation in together]
    for _ in range(11):
        for step in steps:
            next(step, None)
    assert [generation.tokens for generation in together] == alone


def test_a_generation_goes_on_after_a_reset(engine: Engine) -> None:
    want = engine.generate("hello", GREEDY, max_tokens=8)
    want.text()
    generation = engine.generate("hello", GREEDY, max_tokens=8)
    for i, _ in enumerate(generation):
        if i == 3:
            engine.reset()
    assert generation.tokens == want.tokens


@pytest.mark.parametrize("max_tokens", [0, -1])
def test_max_tokens_below_one(engine: Engine, max_tokens: int) -> None:
    with pytest.raises(ParameterError, match="max_tokens"):
        engine.generate("hello", max_tokens=max_tokens)


def test_measure(engine: Engine, bert: TinyModel) -> None:
    rates = measure(engine, n_prompt=20, n_gen=0, depth=8, repetitions=3)
    assert len(rates) == 3 and all(rate > 0 for rate in rates)
    assert len(engine.history) == 28
    assert len(measure(engine, n_gen=5, repetitions=2)) == 2 and len(engine.history) == 5
    with pytest.raises(ContextFullError):
        measure(engine, n_prompt=60, depth=8, repetitions=1)
    for options in ({}, {"n_gen": 1, "repetitions": 0}, {"n_prompt": -1}, {"n_gen": 2, "depth": -1}):
        with pytest.raises(ParameterError, match="1 or more"):
            measure(engine, **options)
    with Engine(bert.path, EngineConfig(n_threads=1)) as embedder, pytest.raises(ModelError, match="only embeds"):
        measure(embedder, n_prompt=4)


def test_control_tokens_come_out_when_asked_for(engine: Engine) -> None:
    only = SamplingParams(temperature=0, logit_bias={1: 1e6})  # <s>, a control token that ends nothing
    for keep, text in ((False, ""), (True, "<s><s>")):
        request = Request(prompt(3), only, max_tokens=2, keep_special=keep)
        assert engine.run(request).text() == text
