"""Embeddings and scores of many texts at once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.reference import bert_states
from helpers.tiny import TinyConfig, TinyModel, build, prompt
from pyggml.engine import Engine, EngineConfig
from pyggml.engine.embedding import Embedder
from pyggml.engine.packing import pack
from pyggml.engine.pairs import pair_ids
from pyggml.errors import ComputeError, ContextFullError, MissingTensorError, ModelError, ParameterError
from pyggml.gguf import GGUFFile
from pyggml.models import Pooling
from pyggml.tensor import DType

LENGTHS = (5, 1, 17, 30, 3, 3, 40, 9, 2, 12)
TEXTS = [prompt(n, seed=n + i) for i, n in enumerate(LENGTHS)]
EXACT = {"n_threads": 1, "type_k": DType.F32, "type_v": DType.F32, "flash_attn": False}


@contextmanager
def embedder(path: Path, *, n_batch: int = 64, n_ctx: int = 48, **options: Any) -> Iterator[Embedder]:
    with Engine(path, EngineConfig(n_ctx=n_ctx, n_batch=n_batch, **options)) as engine:
        yield Embedder(
            engine._decoder, engine.tokenizer, engine.metadata, n_ctx=engine.n_ctx, n_batch=n_batch, sequences=range(8)
        )


def held(e: Embedder) -> int:
    """Positions that the cache holds of any sequence."""
    return sum(
        not e.decoder.cache.can_resume(seq_id, 0) or e.decoder.cache.can_resume(seq_id, 1) for seq_id in range(8)
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("embed")
    configs = {
        "bert": TinyConfig("bert", n_head=2, n_ctx_train=48),
        "llama": TinyConfig(n_ctx_train=48),
        "gemma3": TinyConfig("gemma3", n_layer=3, n_ctx_train=48),
    }
    return {name: build(folder / f"{name}.gguf", config).path for name, config in configs.items()}


# -- batches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", [Pooling.MEAN, Pooling.CLS, Pooling.LAST], ids=["mean", "cls", "last"])
@pytest.mark.parametrize("name", ["bert", "llama", "gemma3"])
def test_together_as_alone(models: dict[str, Path], name: str, pooling: int) -> None:
    """Batches of one text, of several, and (for models that look back) texts in pieces; float32 throughout."""
    with embedder(models[name], **EXACT) as e:
        alone = np.concatenate([e.embed([ids], normalize=False, pooling=pooling).vectors for ids in TEXTS])
        assert held(e) == 0
    for n_batch in (8, 41, 512):
        with embedder(models[name], n_batch=n_batch, **EXACT) as e:
            found = e.embed(TEXTS, normalize=False, pooling=pooling)
            assert held(e) == 0
        # gemma3's GELU is a table of 16-bit floats in ggml: a step of it shows as 1e-3.
        np.testing.assert_allclose(found.vectors, alone, rtol=0, atol=5e-3 if name == "gemma3" else 1e-5)
        assert found.n_tokens == list(LENGTHS) and found.n_truncated == 0


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_with_flash_attention(models: dict[str, Path], name: str) -> None:
    """Keys and values are rounded to 16 bits."""
    with embedder(models[name], **EXACT) as e:
        want = e.embed(TEXTS, normalize=False).vectors
    with embedder(models[name], n_threads=1, flash_attn=True) as e:
        np.testing.assert_allclose(e.embed(TEXTS, normalize=False).vectors, want, rtol=0, atol=2e-2)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_states_are_what_the_output_multiplies(models: dict[str, Path], name: str) -> None:
    with Engine(models[name], EngineConfig(n_ctx=48, **EXACT)) as engine:
        logits = engine.logits(TEXTS[3], outputs="all")
        engine.reset()
        e = Embedder(engine._decoder, engine.tokenizer, engine.metadata, n_ctx=48, n_batch=16)
        states = e.token_states([TEXTS[3]])[0]
    with GGUFFile(models[name]) as file:
        table = np.frombuffer(file.data("token_embd.weight"), np.float32).reshape(-1, 64)
    np.testing.assert_allclose(states @ table.T, logits, rtol=0, atol=5e-3 if name == "gemma3" else 1e-4)


def test_token_states_of_bert(tmp_path: Path) -> None:
    model = build(tmp_path / "m.gguf", TinyConfig("bert", n_head=2, n_ctx_train=48))
    with embedder(model.path, **EXACT) as e:
        for ids, states in zip(TEXTS, e.token_states(TEXTS), strict=True):
            np.testing.assert_allclose(states, bert_states(model, ids), rtol=0, atol=1e-5)


def test_the_pooling_of_the_file_counts(tmp_path: Path) -> None:
    def last(meta: dict[str, Any], weights: object) -> None:
        meta["llama.pooling_type"] = Pooling.LAST

    with embedder(build(tmp_path / "m.gguf", change=last).path, **EXACT) as e:
        np.testing.assert_array_equal(e.embed(TEXTS).vectors, e.embed(TEXTS, pooling=Pooling.LAST).vectors)
        assert np.abs(e.embed(TEXTS).vectors - e.embed(TEXTS, pooling=Pooling.MEAN).vectors).max() > 0.1

    def unknown(meta: dict[str, Any], weights: object) -> None:
        meta["llama.pooling_type"] = 7

    with embedder(build(tmp_path / "u.gguf", change=unknown).path) as e:
        with pytest.raises(ModelError, match="pooling_type 7"):
            e.embed(TEXTS)
        assert e.embed(TEXTS[:1], pooling=Pooling.MEAN).vectors.shape == (1, 64)


def test_other_sequences_of_the_cache_are_left_alone(models: dict[str, Path]) -> None:
    with Engine(models["llama"], EngineConfig(n_ctx=256, n_batch=32, **EXACT)) as engine:
        engine.advance(TEXTS[6])
        e = Embedder(engine._decoder, engine.tokenizer, engine.metadata, n_ctx=48, n_batch=32, sequences=range(1, 5))
        vectors = e.embed(TEXTS).vectors
        assert engine.cache.can_resume(0, 40)
        row = engine.extend(7).copy()
        np.testing.assert_allclose(row[0], engine.logits([*TEXTS[6], 7])[0], rtol=0, atol=1e-5)
        np.testing.assert_allclose(e.embed(TEXTS).vectors, vectors, rtol=0, atol=1e-5)


def test_a_full_cache(models: dict[str, Path]) -> None:
    """Whoever owns the rest of the cache is asked for room; without that, the error says so and nothing is kept."""
    with Engine(models["llama"], EngineConfig(n_ctx=256, n_batch=64, n_threads=1)) as engine:
        engine.advance(prompt(250))
        asked = []

        def make_room() -> bool:
            asked.append(1)
            engine.reset()
            return True

        parts = (engine._decoder, engine.tokenizer, engine.metadata)
        poor = Embedder(*parts, n_ctx=48, n_batch=64, sequences=range(1, 5))
        with pytest.raises(ContextFullError):
            poor.embed(TEXTS)
        assert engine.cache.can_resume(0, 250) and not engine.cache.can_resume(1, 1)
        rich = Embedder(*parts, n_ctx=48, n_batch=64, sequences=range(1, 5), make_room=make_room)
        assert rich.embed(TEXTS).vectors.shape == (len(TEXTS), 64) and asked == [1]


def test_one_batch_at_a_time(models: dict[str, Path]) -> None:
    with embedder(models["llama"], n_batch=16, **EXACT) as e:
        job, steps = e.start(TEXTS), 1
        while job.step():
            steps += 1
        assert job.done and steps >= sum(LENGTHS) / 16
        np.testing.assert_array_equal(e.embeddings(job).vectors, e.embed(TEXTS).vectors)
        job = e.start([TEXTS[6]])
        assert job.step()
        job.cancel()
        assert held(e) == 0 and job.done


lengths = st.lists(st.integers(1, 40), max_size=30)


@given(lengths=lengths, capacity=st.integers(1, 50), n_texts=st.integers(1, 6), split=st.booleans())
def test_packing(lengths: Sequence[int], capacity: int, n_texts: int, split: bool) -> None:
    batches = pack(lengths, capacity=capacity, n_texts=n_texts, split=split)
    assert all(batches)
    covered: dict[int, int] = {}
    for batch in batches:
        assert len(batch) <= n_texts and len({part.text for part in batch}) == len(batch)
        total = sum(part.end - part.begin for part in batch)
        assert total <= capacity or (not split and len(batch) == 1)
        for part in batch:
            assert covered.get(part.text, 0) == part.begin < part.end  # in order, nothing twice
            covered[part.text] = part.end
            whole = (part.begin, part.end) == (0, lengths[part.text])
            assert whole or (split and len(batch) == 1)
    assert covered == dict(enumerate(lengths))


# -- vectors --------------------------------------------------------------------------------------------------------


def test_length_and_dimensions(models: dict[str, Path]) -> None:
    with embedder(models["bert"], **EXACT) as e:
        raw = e.embed(TEXTS, normalize=False).vectors
        unit = e.embed(TEXTS).vectors
        np.testing.assert_allclose(unit, raw / np.linalg.norm(raw, axis=1, keepdims=True), rtol=0, atol=1e-6)
        np.testing.assert_array_equal(e.embed(TEXTS, normalize=False, dimensions=16).vectors, raw[:, :16])
        short = e.embed(TEXTS, dimensions=16).vectors
        np.testing.assert_allclose(short, raw[:, :16] / np.linalg.norm(raw[:, :16], axis=1, keepdims=True), atol=1e-6)
        np.testing.assert_array_equal(e.embed(TEXTS, dimensions=64).vectors, unit)
        assert e.embed([], dimensions=16).vectors.shape == (0, 16) and e.embed([]).vectors.shape == (0, 64)
        for dimensions in (0, -1, 65):
            with pytest.raises(ParameterError, match="dimensions must be 1 to 64"):
                e.embed(TEXTS, dimensions=dimensions)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_texts_that_are_too_long(models: dict[str, Path], name: str) -> None:
    with embedder(models[name], n_ctx=10, **EXACT) as e:
        with pytest.raises(ContextFullError, match="text 1 has 11 tokens; the context holds 10"):
            e.embed([prompt(10), prompt(11)])
        found = e.embed([prompt(9), prompt(20)], truncate=True)
        assert (found.n_tokens, found.n_truncated) == ([9, 10], 1)
        np.testing.assert_allclose(found.vectors[1], e.embed([prompt(20)[:10]]).vectors[0], rtol=0, atol=1e-6)
        text = "the rain in spain falls mainly"
        ids = e.tokenizer.encode(text)
        cut = [*ids[:9], ids[-1]] if name == "bert" else ids[:10]  # [SEP] stays at the end
        assert len(ids) > 10
        got = e.embed([text], truncate=True).vectors
        np.testing.assert_allclose(got, e.embed([cut]).vectors, rtol=0, atol=1e-6)


def test_inputs_that_make_no_text(models: dict[str, Path]) -> None:
    with embedder(models["bert"]) as e:
        for texts, message in (([[5], []], "text 1 has no tokens"), ([[57]], "text 0: token id 57"), ([[-1]], "-1")):
            with pytest.raises(ParameterError, match=message):
                e.embed(texts)
        with pytest.raises(ParameterError, match="pooling must be"):
            e.embed([[5]], pooling=4)
        with pytest.raises(ParameterError, match="adapters"):
            e.embed([[5]], adapters={0: 1.0})
    with embedder(models["llama"]) as e, pytest.raises(ParameterError, match="sequence"):
        Embedder(e.decoder, e.tokenizer, e.metadata, n_ctx=8, n_batch=8, sequences=[])


def test_a_damaged_model(tmp_path: Path) -> None:
    def spoil(meta: object, weights: dict[str, Any]) -> None:
        weights["blk.1.layer_output_norm.bias"][3] = np.nan

    model = build(tmp_path / "m.gguf", TinyConfig("bert", n_head=2), change=spoil)
    with embedder(model.path) as e, pytest.raises(ComputeError, match="not finite"):
        e.embed(TEXTS)


# -- reranking ------------------------------------------------------------------------------------------------------


def cross_encoder(path: Path, *, dense: bool = True, segments: int = 2, labels: int = 0) -> TinyModel:
    random = np.random.default_rng(8)

    def change(meta: dict[str, Any], weights: dict[str, Any]) -> None:
        meta["bert.pooling_type"] = Pooling.RANK
        meta["tokenizer.ggml.token_type_count"] = segments
        weights["token_types.weight"] = weights["token_types.weight"][:segments]
        weights["cls.output.weight"] = random.normal(0, 0.3, (max(labels, 1), 64))
        weights["cls.output.bias"] = random.normal(0, 0.3, max(labels, 1))
        if dense:
            weights["cls.weight"] = random.normal(0, 0.1, (64, 64))
            weights["cls.bias"] = random.normal(0, 0.1, 64)
        if labels:
            meta["bert.classifier.output_labels"] = [f"label {i}" for i in range(labels)]

    return build(path, TinyConfig("bert", n_head=2, n_ctx_train=64), change=change)


def want_score(model: TinyModel, ids: list[int], segments: list[int]) -> float:
    w = model.weights
    table = {**w, "token_types.weight": w["token_types.weight"][:1]}
    # The reference adds row 0 to every token: put the difference of the others into the positions.
    extra = w["token_types.weight"][segments] - w["token_types.weight"][0]
    table["position_embd.weight"] = w["position_embd.weight"][: len(ids)] + extra
    state = bert_states(TinyModel(model.path, model.config, model.n_vocab, table), ids)[0]
    if "cls.weight" in w:
        state = np.tanh(w["cls.weight"] @ state + w["cls.bias"])
    return float((w["cls.output.weight"] @ state + w["cls.output.bias"])[0])


DOCUMENTS = ["the rain in spain", "a", "hello the end", "no", "in the plain the rain falls"]


@pytest.mark.parametrize(("dense", "segments"), [(True, 2), (False, 1)])
def test_scores(tmp_path: Path, dense: bool, segments: int) -> None:
    model = cross_encoder(tmp_path / "m.gguf", dense=dense, segments=segments)
    with embedder(model.path, n_ctx=64, **EXACT) as e:
        found = e.rerank("rain when", DOCUMENTS)
        want = []
        for document in DOCUMENTS:
            q, d = (e.tokenizer.encode(text, add_special=False) for text in ("rain when", document))
            ids = [2, *q, 3, *d, 3]
            kinds = [0] * (len(q) + 2) + [1] * (len(d) + 1)
            want.append(want_score(model, ids, kinds if segments == 2 else [0] * len(ids)))
    np.testing.assert_allclose(found.scores, want, rtol=0, atol=1e-5)
    assert np.ptp(found.scores) > 0.01 and found.n_tokens[1] == len("rainwhen") + 4


def test_documents_that_are_too_long(tmp_path: Path) -> None:
    model = cross_encoder(tmp_path / "m.gguf")
    with embedder(model.path, n_ctx=16, **EXACT) as e:
        with pytest.raises(ContextFullError, match="document 1 have 26 tokens; the context holds 16"):
            e.rerank("rain", ["a", "the rain in spain falls"])
        found = e.rerank("rain", ["a", "the rain in spain falls"], truncate=True)
        assert (found.n_tokens, found.n_truncated) == ([8, 16], 1)
        want = e.rerank("rain", ["the rain in"])  # nine letters of it
        np.testing.assert_allclose(found.scores[1], want.scores[0], rtol=0, atol=1e-6)
        with pytest.raises(ContextFullError, match="shorten the query"):
            e.rerank("the rain in spain", ["a"], truncate=True)


def test_models_that_do_not_rank(tmp_path: Path, models: dict[str, Path]) -> None:
    with embedder(models["bert"]) as e, pytest.raises(ModelError, match="does not rank"):
        e.rerank("a", ["b"])
    labels = cross_encoder(tmp_path / "l.gguf", labels=3)
    with embedder(labels.path) as e, pytest.raises(ModelError, match="3 classes"):
        e.rerank("a", ["b"])
    with embedder(cross_encoder(tmp_path / "m.gguf").path) as e:
        with pytest.raises(ModelError, match="the model ranks"):
            e.embed(["a"])
        assert e.embed(["a"], pooling=Pooling.CLS).vectors.shape == (1, 64)

    def headless(meta: dict[str, Any], weights: object) -> None:
        meta["bert.pooling_type"] = Pooling.RANK

    path = build(tmp_path / "h.gguf", TinyConfig("bert", n_head=2), change=headless).path
    with pytest.raises(MissingTensorError, match=r"cls\.output\.weight"), embedder(path):
        pass


class _Words:
    """A vocabulary whose tokens are letters."""

    def __init__(self, *, bos: int | None, eos: int | None, sep: int | None, begins: bool, ends: bool) -> None:
        self.bos_id, self.eos_id, self.sep_id, self.adds_bos, self.adds_eos = bos, eos, sep, begins, ends

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        assert not add_special
        return [99] if parse_special and text == "<x>" else [ord(letter) for letter in text]


class _Meta(dict[str, Any]):
    path = "m.gguf"

    def get_bool(self, key: str, *, default: bool) -> bool:
        return bool(self.get(key, default))

    def get_str(self, key: str) -> str:
        return str(self[key])


ADD_SEP = "tokenizer.ggml.add_sep_token"
TEMPLATE = "tokenizer.chat_template.rerank"


@pytest.mark.parametrize(
    ("words", "meta", "ids", "segments"),
    [
        (_Words(bos=1, eos=None, sep=3, begins=True, ends=True), {}, "1 q 3 d d 3", "000111"),  # BERT
        (_Words(bos=1, eos=2, sep=2, begins=True, ends=True), {ADD_SEP: True}, "1 q 2 2 d d 2", "0000111"),  # RoBERTa
        (_Words(bos=1, eos=2, sep=2, begins=True, ends=True), {}, "1 q 2 d d 2", "000111"),
        (_Words(bos=1, eos=2, sep=4, begins=True, ends=False), {}, "1 q 4 d d", "00011"),
        (_Words(bos=1, eos=2, sep=4, begins=False, ends=False), {ADD_SEP: True}, "q 4 d d", "0011"),
        (
            _Words(bos=1, eos=2, sep=4, begins=True, ends=True),
            {TEMPLATE: "<x>{query}-{document}."},
            "99 q - d d .",
            "000111",
        ),
    ],
)
def test_pairs(words: Any, meta: dict[str, Any], ids: str, segments: str) -> None:
    pair = pair_ids(words, _Meta(meta), "q", "dd")  # type: ignore[arg-type]
    assert pair.ids == [int(part) if part.isdigit() else ord(part) for part in ids.split()]
    assert pair.segments == [int(digit) for digit in segments]
    assert pair.ids[slice(*pair.document)] == [ord("d")] * 2


def test_vocabularies_without_a_separator() -> None:
    words: Any = _Words(bos=1, eos=None, sep=None, begins=True, ends=True)
    meta: Any = _Meta()
    with pytest.raises(ModelError, match="no token that separates"):
        pair_ids(words, meta, "q", "d")
    meta[TEMPLATE] = "{document}{query}"
    with pytest.raises(ModelError, match="must hold"):
        pair_ids(words, meta, "q", "d")


# -- against llama.cpp ----------------------------------------------------------------------------------------------

SENTENCES = [
    "Why is the sky blue?",
    "Hi",
    "The quick brown fox jumps over the lazy dog, and then it sleeps.",
    "1 2 3 4",
]


@pytest.mark.model
@pytest.mark.parity
@pytest.mark.parametrize("pooling", ["MEAN", "LAST"])
def test_a_model_that_generates_embeds_as_in_llama_cpp(smollm2_path: Path, pooling: str) -> None:
    """Weights of 4 bits with activations rounded to 8, other kernels and batches: directions agree."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(smollm2_path)
    params.embedding = True
    params.pooling_type = getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{pooling}")
    params.n_ctx = params.n_batch = params.n_ubatch = 256
    params.cpuparams.n_threads = 1
    answer = xllamacpp.Server(params).handle_embeddings({"input": SENTENCES})
    theirs = np.array([item["embedding"] for item in answer["data"]])
    with Engine(smollm2_path, EngineConfig(n_ctx=256, n_threads=1)) as engine:
        e = Embedder(engine._decoder, engine.tokenizer, engine.metadata, n_ctx=256, n_batch=256)
        ours = e.embed(SENTENCES, pooling=getattr(Pooling, pooling)).vectors
    cosines = (ours * theirs).sum(axis=1) / np.linalg.norm(theirs, axis=1)
    print(pooling, cosines)
    assert cosines.min() > 0.999 and (ours[0] @ ours[1]) < 0.99
