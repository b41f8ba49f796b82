"""A runner process over its socket."""

import asyncio
import struct
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from pyggml.engine import Engine, EngineConfig
from pyggml.sampling import SamplingParams
from pyggml_server.errors import (
    ContextTooLongError,
    InvalidGrammarError,
    InvalidOptionError,
    ModelLoadError,
    RequestRefusedError,
)
from pyggml_server.protocol import (
    Done,
    Embed,
    Generate,
    GrammarText,
    Measure,
    Metrics,
    Rerank,
    Text,
)

pytestmark = pytest.mark.model
GREEDY = {"temperature": 0.0}
PROMPT = [504, 3575, 282, 4649, 314]  # "The capital of France is"
Answer = Callable[..., tuple[list[Text], Done]]


def test_load_tells_progress_and_sizes(runner: Any) -> None:
    assert runner.fractions[-1] == 1.0
    assert runner.fractions == sorted(runner.fractions)
    loaded = runner.loaded
    assert (loaded.n_ctx, loaded.n_ctx_train, loaded.n_parallel, loaded.n_vocab) == (256, 8192, 3, 49152)
    assert loaded.size == sum(device["needed"] for device in loaded.devices) > runner.path.stat().st_size * 0.9
    assert loaded.size_vram == 0
    assert loaded.load_ns > 0


def test_text_is_what_the_engine_says(generate: Answer, smollm2_path: Path) -> None:
    texts, done = generate(PROMPT, sampling=GREEDY, max_tokens=12)
    with Engine(smollm2_path, EngineConfig(n_ctx=256, n_parallel=3, n_threads=1)) as engine:
        expected = engine.generate(PROMPT, SamplingParams(temperature=0), max_tokens=12)
        assert "".join(text.text for text in texts) == expected.text()
        assert [token for text in texts for token in text.tokens] == list(expected.tokens)
    assert (done.reason, done.prompt_tokens, done.eval_tokens) == ("length", 5, 12)
    assert done.prompt_ns > 0 < done.eval_ns


def test_stop_strings_logprobs_and_shared_prompts(generate: Answer) -> None:
    texts, done = generate(PROMPT, sampling=GREEDY, max_tokens=40, stop=[" Paris"], logprobs=2)
    assert done.reason == "stop"
    assert done.stop_string == " Paris"
    assert done.cached_tokens == 4
    assert " Paris" not in "".join(text.text for text in texts)
    logprobs = [each for text in texts for each in text.logprobs]
    assert logprobs
    assert all(each.top[0] == (each.token, each.logprob) and len(each.top) == 2 for each in logprobs)


def test_a_grammar_binds_while_others_go_on(runner: Any) -> None:
    async def ask(grammar: GrammarText | None) -> str:
        stream = runner.process.stream(
            Generate, tokens=PROMPT, sampling=GREEDY, max_tokens=8, grammar=grammar, ignore_eos=True
        )
        return "".join([message.text async for message in stream if isinstance(message, Text)])

    async def both() -> list[str]:
        return await asyncio.gather(ask(GrammarText("choice", '["Rome", "Oslo"]')), ask(None))

    chosen, free = runner.run(both())
    assert chosen in ("Rome", "Oslo")
    assert free.startswith(" Paris")


def test_a_smaller_context_binds_one_request(runner: Any, generate: Answer) -> None:
    _, done = generate(list(range(100, 200)), n_ctx=32, max_tokens=50, shift=False, ignore_eos=True, sampling=GREEDY)
    assert done.prompt_tokens + done.eval_tokens == 33
    assert (done.truncated_tokens, done.reason) == (68, "length")
    with pytest.raises(ContextTooLongError, match=r"100 tokens do not fit into a context of 32"):
        generate(list(range(100, 200)), n_ctx=32, truncate=False)


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"sampling": {"top_p": 7.0}}, InvalidOptionError, "top_p"),
        ({"tokens": []}, InvalidOptionError, "empty"),
        ({"tokens": [10**6]}, InvalidOptionError, "1000000"),
        ({"adapters": {3: 1.0}}, InvalidOptionError, "adapter 3"),
        ({"grammar": GrammarText("json_schema", '{"type": 3}')}, InvalidGrammarError, "."),
        ({"grammar": GrammarText("gbnf", "root ::= (")}, InvalidGrammarError, "."),
        ({"tokens": [1] * 300, "truncate": False}, ContextTooLongError, "300"),
        ({"sampling": {"no_such_option": 1}}, RequestRefusedError, "no_such_option"),
    ],
)
def test_what_is_wrong_is_told_and_hurts_nobody(
    generate: Answer, fields: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        generate(**{"tokens": PROMPT, "max_tokens": 1} | fields)
    assert generate(PROMPT, max_tokens=1)[1].eval_tokens == 1


def test_closing_a_stream_cancels_it(runner: Any) -> None:
    async def leave() -> tuple[float, float, int]:
        before = await runner.process.ask(Metrics)
        stream = runner.process.stream(
            Generate, tokens=PROMPT, max_tokens=5000, ignore_eos=True, sampling=GREEDY, shift=True
        )
        async with aclosing(stream):
            await anext(stream)
        for _ in range(200):
            after = await runner.process.ask(Metrics)
            if after.running == 0:
                break
            await asyncio.sleep(0.01)
        return before.counters["cancelled"], after.counters["cancelled"], after.running

    before, after, running = runner.run(leave())
    assert (after - before, running) == (1, 0)


def test_many_streams_keep_apart(runner: Any, generate: Answer) -> None:
    prompts = [[*PROMPT, 260 + i] for i in range(7)]
    alone = ["".join(t.text for t in generate(p, sampling=GREEDY, max_tokens=6)[0]) for p in prompts]

    async def one(tokens: list[int]) -> str:
        stream = runner.process.stream(Generate, tokens=tokens, sampling=GREEDY, max_tokens=6)
        return "".join([message.text async for message in stream if isinstance(message, Text)])

    async def together() -> list[str]:
        return await asyncio.gather(*map(one, prompts))

    # batches of other shapes round differently: a near tie may fall the other way
    same = sum(a == b for a, b in zip(alone, runner.run(together()), strict=True))
    assert same >= 5


def test_texts_are_embedded_between_steps(runner: Any) -> None:
    async def both() -> tuple[Any, list[Any]]:
        stream = runner.process.stream(Generate, tokens=PROMPT, max_tokens=20, ignore_eos=True)
        embedding = runner.process.ask(Embed, texts=[[1, 2, 3], PROMPT], dimensions=8)

        async def collect() -> list[Any]:
            return [message async for message in stream]

        vectors, messages = await asyncio.gather(embedding, collect())
        return vectors, messages

    vectors, messages = runner.run(both())
    assert (vectors.rows, vectors.columns, vectors.n_tokens) == (2, 8, [3, 5])
    values = struct.unpack("<16f", vectors.data)
    assert sum(v * v for v in values[:8]) == pytest.approx(1, abs=1e-5)
    assert messages[-1].eval_tokens == 20
    with pytest.raises(InvalidOptionError, match="does not rank"):
        runner.run(runner.process.ask(Rerank, query="a", documents=["b"]))


def test_measuring_agrees_with_loading(runner: Any, started: Any, smollm2_path: Path) -> None:
    async def measure() -> Any:
        async with started() as process:
            return await process.ask(
                Measure, path=str(smollm2_path), config={"n_ctx": 256, "n_parallel": 3, "n_threads": 1}
            )

    found = runner.run(measure())
    assert found.fits
    assert sum(device["needed"] for device in found.devices) == pytest.approx(runner.loaded.size, rel=0.02)


def test_load_failures_are_typed(runner: Any, started: Any, tmp_path: Path, smollm2_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(smollm2_path.read_bytes()[:100_000])

    async def load(**fields: Any) -> None:
        await process.load(on_progress=lambda _: None, stall=60, **fields)

    async def fail() -> None:
        nonlocal process
        async with started() as process:
            with pytest.raises(ModelLoadError, match=r"damaged\.gguf"):
                await load(path=str(damaged))
            with pytest.raises(ModelLoadError, match="absent"):
                await load(path=str(tmp_path / "absent.gguf"))
            with pytest.raises(ModelLoadError, match="n_batch"):
                await load(path=str(smollm2_path), config={"n_batch": 0})
            with pytest.raises(RequestRefusedError, match="no model is loaded"):
                await process.ask(Embed, texts=[[1]])
            await load(path=str(smollm2_path), config={"n_ctx": 64, "n_threads": 1})
            assert (await process.ping()).state == "ready"
            with pytest.raises(ModelLoadError, match="already"):
                await load(path=str(smollm2_path))

    process: Any = None
    runner.run(fail())
