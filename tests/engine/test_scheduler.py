"""Many requests at once: the same answers as alone, fair shares, shifts, cancellation, failures."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.reference import logits
from helpers.tiny import TinyModel, prompt
from pyggml.batch import Batch
from pyggml.engine import Engine, EngineConfig, PromptLookup, Request, Task
from pyggml.errors import ComputeError, ContextFullError, GrammarError, ParameterError
from pyggml.grammar import Grammar
from pyggml.sampling import SamplingParams
from pyggml.tensor import DType

EXACT = {"n_threads": 1, "type_k": DType.F32, "type_v": DType.F32, "flash_attn": False}
GREEDY = SamplingParams(temperature=0)


def request(ids: Sequence[int], n: int, **options: object) -> Request:
    return Request(list(ids), GREEDY, max_tokens=n, ignore_eos=True, **options)  # type: ignore[arg-type]


def finish(engine: Engine, *tasks: Task) -> list[list[int]]:
    for _ in range(2000):
        if all(task.finished for task in tasks):
            return [task.generated for task in tasks]
        engine.step()
    raise AssertionError("it does not end")


def alone(model: TinyModel, ids: Sequence[int], n: int, *, n_ctx: int = 256) -> list[int]:
    """The answer of an engine that has nothing else to do."""
    with Engine(model.path, EngineConfig(n_ctx=n_ctx, **EXACT)) as engine:
        return finish(engine, engine.submit(request(ids, n)))[0]


@pytest.fixture
def four(llama: TinyModel) -> Iterator[Engine]:
    with Engine(llama.path, EngineConfig(n_ctx=128, n_parallel=4, n_batch=32, n_chunk=8, **EXACT)) as engine:
        yield engine


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_the_same_answers_as_alone(name: str, request: pytest.FixtureRequest) -> None:
    model: TinyModel = request.getfixturevalue(name)
    wanted = [(prompt(n, seed=n), m) for n, m in ((5, 30), (40, 12), (1, 25), (33, 1), (70, 20), (17, 30), (2, 8))]
    make = globals()["request"]
    with Engine(model.path, EngineConfig(n_ctx=128, n_parallel=3, n_batch=32, n_chunk=8, **EXACT)) as engine:
        tasks = [engine.submit(make(ids, m)) for ids, m in wanted]
        found = finish(engine, *tasks)
        assert engine.scheduler.idle and engine.metrics.requests == len(tasks)
        assert engine.metrics.sequences > 2 * engine.metrics.steps * 0.8  # they did run together
    assert found == [alone(model, ids, m) for ids, m in wanted]


def test_a_long_prompt_does_not_stop_those_who_answer(four: Engine) -> None:
    talker = four.submit(request(prompt(4), 40))
    four.step()
    reader = four.submit(request(prompt(100, seed=3), 5))
    said = len(talker.generated)
    for _ in range(12):
        four.step()
        assert len(talker.generated) == said + 1  # one token in every step
        said += 1
        assert reader.slot is not None and len(reader.slot.tokens) == min(100, 8 * (said - 1))
    assert not reader.decoding
    four.step()
    assert reader.decoding
    finish(four, talker, reader)
    assert four.metrics.prompt_tokens == 104 and four.metrics.decode_tokens == 39 + 4


def test_prompts_share_what_room_there_is(four: Engine) -> None:
    long, short = four.submit(request(prompt(100, seed=3), 2)), four.submit(request(prompt(10, seed=4), 2))
    four.step()  # 32 tokens: 10 for the short one, which needs no more, 22 for the long one
    assert short.decoding and long.slot is not None and len(long.slot.tokens) == 22
    finish(four, long, short)


def test_everybody_gets_a_turn_when_not_all_fit_into_a_batch(llama: TinyModel) -> None:
    with Engine(llama.path, EngineConfig(n_ctx=64, n_parallel=6, n_batch=4, **EXACT)) as engine:
        tasks = [engine.submit(request(prompt(3, seed=i), 12)) for i in range(6)]
        for _ in range(40):
            engine.step()
            lengths = [len(task.generated) for task in tasks if task.decoding and not task.finished]
        assert not lengths or max(lengths) - min(lengths) <= 8
        assert finish(engine, *tasks) == [alone(llama, prompt(3, seed=i), 12) for i in range(6)]


def test_more_requests_than_sequences_wait_by_priority(llama: TinyModel) -> None:
    with Engine(llama.path, EngineConfig(n_ctx=64, **EXACT)) as engine:
        first = engine.submit(request(prompt(3), 5))
        engine.step()
        late = [engine.submit(request(prompt(3, seed=i), 3, priority=p)) for i, p in ((1, 0), (2, 5), (3, 0))]
        engine.step()
        assert engine.scheduler.n_waiting == 3
        order = []
        while not engine.scheduler.idle:
            order += [late.index(task) for task in engine.step() if task.finished and task is not first]
        assert order == [1, 0, 2] and all(task.stats.queue_seconds > 0 for task in late)


def test_cancelling_between_steps(four: Engine) -> None:
    tasks = [four.submit(request(prompt(5, seed=i), 50)) for i in range(6)]
    for _ in range(4):
        four.step()
    four.scheduler.cancel(tasks[0])
    four.scheduler.cancel(tasks[5])  # waits for a sequence
    said = len(tasks[0].generated)
    touched = four.step()
    assert tasks[0] in touched and tasks[5] in touched
    assert [task.stats.finish_reason for task in (tasks[0], tasks[5])] == ["cancelled"] * 2
    assert len(tasks[0].generated) == said and tasks[4].slot is not None  # who waited has its sequence now
    finish(four, *tasks)
    assert four.metrics.cancelled == 2


def test_closing_or_dropping_a_generation_frees_its_sequence(four: Engine) -> None:
    kept = [four.run(request(prompt(5, seed=i), 60)) for i in range(4)]
    for generation in kept:
        next(iter(generation))
    kept[0].close()
    del kept[1]
    four.step()
    assert four.scheduler.slots.n_idle == 2


# -- shared prefixes ----------------------------------------------------------------------------------------------


def test_users_share_a_prefix_without_copies(four: Engine, llama: TinyModel) -> None:
    system = prompt(60, seed=1)
    asked = [system + prompt(6, seed=10 + i) for i in range(4)]
    finish(four, four.submit(request(asked[0], 4)))
    used = four.cache.cells.n_used  # type: ignore[attr-defined]
    tasks = [four.submit(request(ids, 4)) for ids in asked[1:]]
    found = finish(four, *tasks)
    assert [task.stats.cached_tokens for task in tasks] == [60, 60, 60]
    assert four.scheduler.slots.forks == 3
    assert four.cache.cells.n_used == used + 3 * (6 + 3)  # type: ignore[attr-defined]
    assert found == [alone(llama, ids, 4) for ids in asked[1:]]


def test_a_prompt_that_is_all_there_costs_one_token(four: Engine) -> None:
    ids = prompt(50)
    finish(four, four.submit(request(ids, 3)))
    before = four.metrics.prompt_tokens
    again = four.submit(request(ids, 3))
    four.step()
    assert again.decoding and four.metrics.prompt_tokens == before + 1 and again.stats.cached_tokens == 49


def test_the_sequence_idle_longest_is_given_away(four: Engine) -> None:
    for i in range(4):
        finish(four, four.submit(request(prompt(10, seed=i), 2)))
    finish(four, four.submit(request(prompt(10, seed=0), 2)))  # 0 is used again: 1 is the oldest
    finish(four, four.submit(request(prompt(10, seed=9), 2)))
    held = [slot.tokens[:10] for slot in four.scheduler.slots.slots]
    assert prompt(10, seed=1) not in held
    assert all(prompt(10, seed=i) in held for i in (0, 2, 3, 9))


# -- the end of the context ---------------------------------------------------------------------------------------


def test_without_shifting_a_full_context_ends_the_answer(llama: TinyModel) -> None:
    with Engine(llama.path, EngineConfig(n_ctx=24, **EXACT)) as engine:
        task = engine.submit(Request(prompt(20), GREEDY, ignore_eos=True))
        finish(engine, task)
        assert task.stats.finish_reason == "length" and len(task.generated) == 5


@pytest.mark.parametrize("n_keep", [0, 4, -1])
def test_shifting_forgets_half_of_what_follows_n_keep(llama: TinyModel, n_keep: int) -> None:
    """After a shift the keys have moved: the next token is what the remaining text gives, but for deeper layers, whose
    keys still know of what was forgotten. One layer has no such memory."""
    ids = prompt(20)
    with Engine(llama.path, EngineConfig(n_ctx=32, **EXACT)) as engine:
        task = engine.submit(Request(ids, GREEDY, max_tokens=60, ignore_eos=True, shift=True, n_keep=n_keep))
        finish(engine, task)
        bos = engine.tokenizer.adds_bos
        keep = 20 if n_keep < 0 else n_keep + bos
        assert len(task.generated) == 60 and task.stats.shifts >= 2
        assert task.tokens[:keep] == ids[:keep] and len(task.tokens) <= 33
        assert task.tokens[keep:] == (ids + task.generated)[-(len(task.tokens) - keep) :]


def test_a_shared_context_is_shifted_too(llama: TinyModel) -> None:
    with Engine(llama.path, EngineConfig(n_ctx=32, n_parallel=2, **EXACT)) as engine:
        ids = prompt(24)
        tasks = [engine.submit(Request(ids, GREEDY, max_tokens=n, ignore_eos=True, shift=True)) for n in (1, 40, 40)]
        finish(engine, *tasks)
        assert tasks[1].generated == tasks[2].generated and len(tasks[1].generated) == 40


def test_a_prompt_that_is_too_long(four: Engine) -> None:
    ids = prompt(150)
    with pytest.raises(ContextFullError, match="150 tokens"):
        four.submit(request(ids, 3))
    task = four.submit(request(ids, 3, truncate=True, n_keep=10))
    keep = 10 + four.tokenizer.adds_bos
    assert task.tokens == ids[:keep] + ids[keep + 22 :] and task.stats.truncated_tokens == 22
    finish(four, task)


# -- failures -----------------------------------------------------------------------------------------------------


def test_a_failed_batch_ends_its_requests_and_no_others(four: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = [four.submit(request(prompt(5, seed=i), 20)) for i in range(4)]
    outside = four.submit(request(prompt(5, seed=8), 5))
    four.step()
    compute = four.scheduler.decoder.run

    def fail(batch: Batch) -> np.ndarray:
        monkeypatch.setattr(four.scheduler.decoder, "run", compute)
        raise ComputeError("the device is gone")

    monkeypatch.setattr(four.scheduler.decoder, "run", fail)
    four.step()
    assert [str(task.error) for task in inside] == ["the device is gone"] * 4
    assert all(not slot.tokens for slot in four.scheduler.slots.slots)  # nobody builds on what may be wrong
    assert finish(four, outside) and outside.error is None and four.metrics.failed == 4


def test_logits_that_are_no_numbers_end_one_request(four: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [four.submit(request(prompt(5, seed=i), 6)) for i in range(2)]
    four.step()
    compute = four.scheduler.decoder.run

    def spoil(batch: Batch) -> np.ndarray:
        rows = compute(batch).copy()
        rows[0] = np.nan
        monkeypatch.setattr(four.scheduler.decoder, "run", compute)
        return rows

    monkeypatch.setattr(four.scheduler.decoder, "run", spoil)
    four.step()
    assert [task.error is not None for task in tasks].count(True) == 1
    finish(four, *tasks)
    assert sorted(str(task.stats.finish_reason) for task in tasks) == ["error", "length"]


def test_a_generation_raises_what_ended_it(four: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(batch: Batch) -> np.ndarray:
        raise ComputeError("the device is gone")

    monkeypatch.setattr(four.scheduler.decoder, "run", fail)
    with pytest.raises(ComputeError, match="gone"):
        four.run(request(prompt(5), 6)).text()


def test_options_out_of_their_range(four: Engine) -> None:
    for options in ({"n_keep": -2}, {"logprobs": 21}, {"logprobs": -1}, {"n_draft": 0}, {"max_tokens": 0}):
        with pytest.raises(ParameterError, match=next(iter(options))):
            Request([3], **options)
    with pytest.raises(ParameterError, match="adapter 0"):
        four.submit(request([3], 3, adapters={0: 1.0}))


# -- one sequence at a time beside requests -------------------------------------------------------------------------


def test_a_request_gives_way_to_direct_use(llama: TinyModel) -> None:
    ids = prompt(12)
    with Engine(llama.path, EngineConfig(n_ctx=64, **EXACT)) as engine:
        task = engine.submit(request(ids, 20))
        for _ in range(5):
            engine.step()
        row, _ = engine.advance(prompt(9, seed=5))
        np.testing.assert_allclose(row[0], logits(llama, prompt(9, seed=5))[-1], rtol=0, atol=1e-5)
        engine.step()
        row = engine.extend(4)  # its sequence is taken again: computed anew
        np.testing.assert_allclose(row[0], logits(llama, [*prompt(9, seed=5), 4])[-1], rtol=0, atol=1e-5)
        assert finish(engine, task) == [alone(llama, ids, 20)] and engine.metrics.preemptions == 2


@settings(max_examples=25, deadline=None)
@given(
    plan=st.lists(
        st.tuples(st.integers(1, 60), st.integers(1, 12), st.integers(0, 3), st.booleans(), st.integers(0, 4)),
        min_size=1,
        max_size=8,
    ),
    n_parallel=st.integers(1, 4),
    n_batch=st.integers(2, 24),
)
def test_any_mix_of_requests(
    llama: TinyModel, plan: list[tuple[int, int, int, bool, int]], n_parallel: int, n_batch: int
) -> None:
    """Prefixes in common, arrivals at any time, some cancelled: who is not cancelled says what it says alone."""
    config = EngineConfig(n_ctx=80, n_parallel=n_parallel, n_batch=n_batch, n_chunk=5, **EXACT)
    with Engine(llama.path, config) as engine:
        tasks = []
        for length, n, seed, cancel, steps in plan:
            tasks.append((engine.submit(request(prompt(length, seed=seed), n)), length, n, seed, cancel))
            for _ in range(steps):
                engine.step()
        for task, *_, cancel in tasks:
            if cancel:
                engine.scheduler.cancel(task)
        finish(engine, *(task for task, *_ in tasks))
        engine.reset()
        for task, length, n, seed, _ in tasks:
            if task.stats.finish_reason != "cancelled":
                again = engine.submit(request(prompt(length, seed=seed), n))
                assert finish(engine, again) == [task.generated] and len(task.generated) == n
                engine.reset()
        assert engine.scheduler.idle and engine.scheduler.slots.n_idle == n_parallel


# -- across restarts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_a_prompt_read_before_a_restart_is_not_read_again(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model: TinyModel = request.getfixturevalue(name)
    ids = prompt(70)
    config = EngineConfig(n_ctx=128, snapshot_dir=tmp_path, snapshot_min_tokens=32, **EXACT)
    make = globals()["request"]
    with Engine(model.path, config) as engine:
        (first,) = finish(engine, engine.submit(make(ids, 5)))
    with Engine(model.path, config) as engine:
        asked = [*ids, *first[:4]] + prompt(3, seed=2)
        task = engine.submit(make(asked, 5))
        found = finish(engine, task)[0]
        assert task.stats.cached_tokens == 74  # the fifth token of the answer was never computed
        assert engine.metrics.restored_tokens == 74 and engine.metrics.prompt_tokens == 3
    assert found == alone(model, asked, 5)
    with Engine(model.path, replace(config, type_k=DType.F16)) as engine:  # another cache: not its snapshots
        task = engine.submit(make(ids, 2))
        finish(engine, task)
        assert task.stats.cached_tokens == 0


def test_what_others_push_out_comes_back_from_disk(llama: TinyModel, tmp_path: Path) -> None:
    config = EngineConfig(n_ctx=128, snapshot_dir=tmp_path, snapshot_min_tokens=16, **EXACT)
    with Engine(llama.path, config) as engine:
        for seed in (1, 2, 3):
            finish(engine, engine.submit(request(prompt(40, seed=seed), 2)))
        task = engine.submit(request(prompt(40, seed=1), 2))
        finish(engine, task)
        assert task.stats.cached_tokens == 39


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(
    llama: TinyModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    config = EngineConfig(n_ctx=128, snapshot_dir=tmp_path / "file" / "folder", snapshot_min_tokens=16, **EXACT)
    with Engine(llama.path, config) as engine:
        finish(engine, engine.submit(request(prompt(40), 2)))
    assert "cannot save a snapshot" in caplog.text


# -- drafts ---------------------------------------------------------------------------------------------------------


class Script:
    """A drafter that knows the answer, or that is wrong after some tokens."""

    def __init__(self, known: list[int], *, right: int) -> None:
        self.known, self.right = known, right
        self.judged: list[tuple[int, int]] = []

    def draft(self, tokens: Sequence[int], *, n_max: int) -> list[int]:
        at = len(tokens)
        draft = self.known[at : at + n_max]
        return [token if i < self.right else (token + 1) % 40 for i, token in enumerate(draft)]

    def accepted(self, n_drafted: int, n_accepted: int) -> None:
        self.judged.append((n_drafted, n_accepted))


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("right", [0, 2, 8])
def test_drafts_change_the_speed_and_not_the_answer(name: str, right: int, request: pytest.FixtureRequest) -> None:
    model: TinyModel = request.getfixturevalue(name)
    ids, make = prompt(20), globals()["request"]
    want = alone(model, ids, 30)
    with Engine(model.path, EngineConfig(n_ctx=128, n_parallel=2, **EXACT)) as engine:
        drafter = Script(ids + want, right=right)
        other = engine.submit(make(prompt(9, seed=2), 12))
        task = engine.submit(make(ids, 30, drafter=drafter, n_draft=4))
        found = finish(engine, task, other)
        assert found == [want, alone(model, prompt(9, seed=2), 12)]
        assert {n for _, n in drafter.judged} <= {0, 1, 2, 3, 4}
        if right == 8:
            assert all(n == m for n, m in drafter.judged) and engine.metrics.steps < 20
            assert task.stats.accepted_tokens == task.stats.drafted_tokens == 30 - 1 - len(drafter.judged) + 0
        if right == 0:
            assert task.stats.accepted_tokens == 0 and task.stats.drafted_tokens > 0


def test_prompt_lookup_repeats_what_the_prompt_says(llama: TinyModel) -> None:
    ids = prompt(12) * 4
    with Engine(llama.path, EngineConfig(n_ctx=256, **EXACT)) as engine:
        task = engine.submit(request(ids, 60, drafter=PromptLookup()))
        assert finish(engine, task) == [alone(llama, ids, 60)]
        assert task.stats.drafted_tokens > 0


# -- grammars -------------------------------------------------------------------------------------------------------


def test_grammars_in_a_batch_with_others(four: Engine, llama: TinyModel) -> None:
    hot = SamplingParams(temperature=3.0, top_k=0, top_p=1.0, seed=1)
    plain = four.submit(request(prompt(6), 20))
    asked = [
        four.submit(Request(prompt(5, seed=i), hot, grammar=grammar, max_tokens=40))
        for i, grammar in enumerate((Grammar.regex("(the|he)(in|on)"), Grammar.choice(["rain", "win"])))
    ]
    finish(four, plain, *asked)
    said = ["".join(piece.text for piece in task.outputs) for task in asked]
    assert said[0].strip() in {"thein", "theon", "hein", "heon"} and said[1].strip() in {"rain", "win"}
    assert [task.stats.finish_reason for task in asked] == ["stop", "stop"]
    assert plain.generated == alone(llama, prompt(6), 20)


def test_forced_tokens_are_not_sampled(four: Engine) -> None:
    grammar = Grammar.regex("theraininthewin(ter|d)")
    task = four.submit(Request(prompt(5), GREEDY, grammar=grammar, max_tokens=60))
    finish(four, task)
    assert 5 < task.stats.forced_tokens < task.stats.eval_tokens <= len(task.generated) + 1
    assert "".join(piece.text for piece in task.outputs).strip() in {"theraininthewinter", "theraininthewind"}


def test_forced_tokens_have_logprobs_where_asked_for(four: Engine) -> None:
    grammar = Grammar.regex("theraininthewin(ter|d)")
    fast, told = (
        four.submit(Request(prompt(5), GREEDY, grammar=grammar, max_tokens=60, logprobs=wanted)) for wanted in (None, 2)
    )
    finish(four, fast, told)
    assert told.generated == fast.generated
    assert told.stats.eval_tokens == fast.stats.eval_tokens and told.stats.forced_tokens >= fast.stats.forced_tokens > 5
    pieces = [piece for piece in told.outputs if piece.token is not None]
    assert [piece.logprobs.token for piece in pieces if piece.logprobs] == told.generated
    cut = four.submit(Request(prompt(5), GREEDY, grammar=grammar, max_tokens=4))
    finish(four, cut)
    assert cut.stats.finish_reason == "length" and cut.generated == fast.generated[:4]
    assert fast.stats.eval_seconds > 0


def test_a_grammar_with_drafts(four: Engine) -> None:
    grammar = Grammar.regex("(therainin){3}(the|he)")
    plain = four.submit(Request(prompt(5), GREEDY, grammar=grammar, max_tokens=80))
    finish(four, plain)
    drafter = Script(prompt(5) + plain.generated, right=3)
    task = four.submit(Request(prompt(5), GREEDY, grammar=grammar, max_tokens=80, drafter=drafter))
    finish(four, task)
    assert task.generated == plain.generated


def test_a_wrong_grammar_is_refused_at_once(four: Engine) -> None:
    with pytest.raises(GrammarError):
        four.submit(Request(prompt(5), GREEDY, grammar=Grammar.regex("(")))
    assert four.scheduler.idle


# -- log-probabilities ----------------------------------------------------------------------------------------------


def test_logprobs_are_those_of_the_raw_logits(llama: TinyModel) -> None:
    hot = SamplingParams(temperature=2.0, top_k=5, seed=3, repeat_penalty=1.3)
    ids = prompt(6)
    with Engine(llama.path, EngineConfig(n_ctx=64, **EXACT)) as engine:
        pieces = list(engine.generate(ids, hot, max_tokens=8, logprobs=4))
        tokens = [piece.token for piece in pieces if piece.token is not None]
    rows = logits(llama, ids + tokens)[len(ids) - 1 : -1]
    exact = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    for piece, row in zip(pieces, exact, strict=False):
        assert piece.logprobs is not None and piece.token is not None
        assert piece.logprobs.logprob == pytest.approx(row[piece.token], abs=1e-4)
        assert [token for token, _ in piece.logprobs.top] == np.argsort(-row, kind="stable")[:4].tolist()


def test_a_cache_that_is_too_small_lets_requests_wait_for_each_other(llama: TinyModel) -> None:
    """Cannot happen with the room an engine makes; here somebody has taken most of it."""
    with Engine(llama.path, EngineConfig(n_ctx=256, n_parallel=2, **EXACT)) as engine:
        engine.cache.start(Batch.of_sequence([3] * 400, start=0, seq_id=9))
        tasks = [engine.submit(request(prompt(60, seed=i), 20)) for i in range(2)]
        assert finish(engine, *tasks) == [alone(llama, prompt(60, seed=i), 20) for i in range(2)]
        assert engine.metrics.preemptions == 1
        last = engine.submit(request(prompt(120), 20))
        finish(engine, last)
        assert isinstance(last.error, ContextFullError)
