"""Our chain beside llama.cpp's own samplers: the same tokens are left, with the same probabilities.

Needs libllama, named by PYGGML_LLAMA_LIB, of the version in tests/parity/README.md.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from parity.llamacpp_abi import OracleError, library_path
from pyggml.gguf import GGUFFile
from pyggml.sampling import DryBreakers, Sampler, SamplingParams
from pyggml.tokenizer import Tokenizer

from .llamacpp import Samplers
from .test_distribution import alternatives

pytestmark = pytest.mark.parity

OFF: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "dry_sequence_breakers": ()}


@pytest.fixture(scope="module")
def library() -> Path:
    try:
        return library_path()
    except OracleError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def llama(library: Path) -> Samplers:
    return Samplers(library)


def ours(
    logits: npt.NDArray[np.float32], recent: list[int], p: SamplingParams, breakers: DryBreakers | None = None
) -> dict[int, float]:
    sampler = Sampler(p, breakers=breakers)
    sampler.accept(recent)
    ids, probs = sampler.distribution(logits)
    return dict(zip(ids.tolist(), probs.tolist(), strict=True))


def random_options(rng: np.random.Generator) -> dict[str, Any]:
    """A few samplers at a time, with random numbers."""
    makers: list[dict[str, Any]] = [
        {"top_k": int(rng.integers(1, 60))},
        {"top_p": float(rng.uniform(0.05, 0.99))},
        {"min_p": float(rng.uniform(0.01, 0.9))},
        {"typical_p": float(rng.uniform(0.1, 0.99))},
        {"top_n_sigma": float(rng.uniform(0.3, 3))},
        {"xtc_probability": 1.0, "xtc_threshold": float(rng.uniform(0.01, 0.3))},
        {"temperature": float(rng.uniform(0.3, 2))},
        {"dynatemp_range": float(rng.uniform(0.1, 1.5)), "dynatemp_exponent": float(rng.uniform(0.5, 2))},
        {"repeat_penalty": float(rng.uniform(0.7, 1.5)), "repeat_last_n": int(rng.integers(1, 30))},
        {"presence_penalty": float(rng.uniform(-1, 1)), "frequency_penalty": float(rng.uniform(-0.5, 0.5))},
        {"dry_multiplier": 0.8, "dry_allowed_length": int(rng.integers(0, 4)), "dry_base": 1.75},
        {"logit_bias": {int(rng.integers(0, 20)): float(rng.uniform(-3, 3))}},
        {"min_keep": int(rng.integers(0, 8))},
    ]
    chosen = rng.choice(len(makers), int(rng.integers(1, 7)), replace=False)
    return {name: value for at in chosen for name, value in makers[at].items()}


@pytest.mark.parametrize("block", range(8))
def test_random_chains(llama: Samplers, block: int) -> None:
    rng = np.random.default_rng(block)
    for case in range(60):
        n = int(rng.choice([1, 2, 5, 40, 64, 1500]))
        logits = (rng.normal(size=n) * rng.choice([0.5, 2.0, 4.0])).astype(np.float32)
        recent = rng.integers(0, min(n, 6), int(rng.integers(0, 40))).tolist()
        options = random_options(rng)
        options["logit_bias"] = {i: b for i, b in options.get("logit_bias", {}).items() if i < n}
        p = SamplingParams(**(OFF | options))
        found = ours(logits, recent, p)
        wanted = [llama.chances(logits, recent, p)]
        if found.keys() != wanted[0].keys():  # a limit within rounding of a candidate: llama.cpp sums in float
            wanted += [llama.chances(logits, recent, q) for q in alternatives(p)]
        want = next((w for w in wanted if w.keys() == found.keys()), None)
        assert want is not None, (case, p, sorted(found), sorted(wanted[0]))
        assert found == pytest.approx(want, rel=2e-3, abs=1e-5), (case, p)


@pytest.mark.parametrize("version", [1, 2])
def test_first_step_of_mirostat(llama: Samplers, version: int) -> None:
    rng = np.random.default_rng(version)
    for _ in range(40):
        n = int(rng.choice([2, 30, 150, 3000]))
        logits = (rng.normal(size=n) * rng.choice([0.5, 2.0, 4.0])).astype(np.float32)
        tau, heat = float(rng.uniform(0.5, 6)), float(rng.uniform(0.5, 1.5))
        p = SamplingParams(**(OFF | {"mirostat": version, "mirostat_tau": tau, "temperature": heat}))
        found, want = ours(logits, [], p), llama.chances(logits, [], p)
        if found.keys() != want.keys():  # k was rounded the other way, or a surprise is mu
            assert len(found.keys() ^ want.keys()) == 1
            continue
        assert found == pytest.approx(want, rel=2e-3, abs=1e-5)


TEXT = """1: the cat sat on the mat
2: the cat sat on the mat* and the dog sat on the mat
3: "the cat sat on the mat", q123 said: the cat sat on the </end> the cat sat on the"""


@pytest.fixture(scope="module", params=["smollm2_path", "gemma3_path"])
def vocabulary(library: Path, request: pytest.FixtureRequest) -> tuple[Samplers, Tokenizer]:
    path: Path = request.getfixturevalue(request.param)
    with GGUFFile(path) as file:
        return Samplers(library, vocabulary=path), Tokenizer.from_metadata(file.metadata)


@pytest.mark.model
@pytest.mark.parametrize(
    "texts", [(), ("\n", ":", '"', "*"), (" q12",), ("</end>", "mat*"), ("the mat",), ("cat sat",)], ids=str
)
def test_dry_with_a_vocabulary(vocabulary: tuple[Samplers, Tokenizer], texts: tuple[str, ...]) -> None:
    """The texts become token sequences, and these end repeats where llama.cpp's do."""
    llama, tokenizer = vocabulary
    breakers = DryBreakers.from_texts(
        texts,
        pieces=[tokenizer.token_bytes(id) for id in range(tokenizer.n_vocab)],
        encode=lambda text: tokenizer.encode(text, add_special=False, parse_special=False),
    )
    ids = tokenizer.encode(TEXT, add_special=False)
    p = SamplingParams(**(OFF | {"dry_multiplier": 0.8, "dry_penalty_last_n": 200, "dry_sequence_breakers": texts}))
    wanted = llama.dry_losses(ids, p)
    assert sum(map(bool, wanted)) > 3
    sampler = Sampler(p, breakers=breakers)
    row = np.full(tokenizer.n_vocab, -np.inf, np.float32)
    row[ids] = 0.0
    row[0] = 1.0  # never in the text: what the others lost shows beside it
    for token, want in zip(ids, wanted, strict=True):
        sampler.accept((token,))
        kept, probs = sampler.distribution(row)
        lost = {int(id): float(np.log(probs[0] / prob)) - 1.0 for id, prob in zip(kept, probs, strict=True) if id}
        assert {id: loss for id, loss in lost.items() if loss > 1e-6} == pytest.approx(want, rel=1e-4)
