"""Converted folders against llama.cpp's converter (metadata, tensors) and transformers (logits), as recorded.

``tests/parity/record_conversion.py`` made the archives.
"""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyggml.convert import convert_folder, find_mix
from pyggml.engine import Engine, EngineConfig
from pyggml.gguf import GGUFFile
from pyggml.quantize import quantize_file
from pyggml.tensor import DType
from pyggml.tokenizer import Tokenizer

DATA = Path(__file__).parent / "data"
CASES = ("llama3", "llama-fallback", "mistral", "gemma3")
TEXTS = ("The sea was calm.", " two  spaces\n\n\tand a tab", "Größe 123 4567 “quoted” 🦙", "it's <|tag|>, I'LL [INST]")
# keys that say who made the file, and for whom
OURS = {"pyggml.converter_version", "tokenizer.ggml.eos_token_ids", "tokenizer.ggml.unknown_token_id"}
THEIRS = {"general.size_label", "general.finetune", "general.basename", "general.sampling.temp"}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, with ``converted.gguf`` in it."""
    folder = tmp_path_factory.mktemp("case") / request.param
    with zipfile.ZipFile(DATA / f"{request.param}.zip") as archive:
        archive.extractall(folder)
    convert_folder(folder, folder / "converted.gguf")
    return folder


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def test_metadata(case: Path) -> None:
    with GGUFFile(case / "converted.gguf") as file, GGUFFile(case / "oracle.gguf") as oracle:
        ours, theirs = dict(file.metadata), dict(oracle.metadata)
        assert set(ours) - set(theirs) - OURS == (
            {"tokenizer.ggml.add_space_prefix"}
            if case.name == "llama-fallback"
            else {"gemma3.attention.sliding_window_pattern"} & set(ours)
        )
        assert set(theirs) - set(ours) - THEIRS == set()
        for key in set(ours) & set(theirs) - {"general.name"}:
            if (case.name, key) == ("llama-fallback", "tokenizer.ggml.scores"):
                continue  # llama.cpp gives all tokens the same score, so that it cannot merge them
            assert _plain(ours[key]) == _plain(theirs[key]), key
            assert file.types[key] == oracle.types[key], key


def test_tensors(case: Path) -> None:
    theirs = json.loads((case / "oracle.json").read_text())
    with GGUFFile(case / "converted.gguf") as file:
        assert set(file.tensors) == set(theirs)
        for info in file.tensors.values():
            digest = hashlib.sha256(file.data(info.name)).hexdigest()
            assert [info.type.name, list(info.shape), digest] == theirs[info.name], info.name


def test_logits(case: Path) -> None:
    """In float32, because products with 16-bit matrices round what they are multiplied with."""
    expected = np.load(case / "expected.npz")
    quantize_file(case / "converted.gguf", case / "exact.gguf", find_mix("F32"))
    options = EngineConfig(n_ctx=64, n_threads=1, flash_attn=False, type_k=DType.F32, type_v=DType.F32)
    with Engine(case / "exact.gguf", options) as engine:
        got = engine.logits(expected["ids"].tolist(), outputs="all")
    # ggml's GELU is a table of 16-bit floats; F32 weights were rounded to 16 bits
    atol = {"gemma3": 1e-2, "mistral": 5e-3}.get(case.name, 1e-4)
    np.testing.assert_allclose(got, expected["logits"], rtol=0, atol=atol)


def test_ids(case: Path) -> None:
    expected = np.load(case / "expected.npz")
    with GGUFFile(case / "converted.gguf") as file:
        tokenizer = Tokenizer.from_metadata(file.metadata)
    for i, text in enumerate(TEXTS):
        want = expected[f"text{i}"].tolist()
        assert tokenizer.encode(text, add_special=case.name == "llama3") == want, text


@pytest.mark.parity
def test_transformers_of_today(tmp_path: Path) -> None:
    """What the installed release writes and computes, not the one of the recording."""
    pytest.importorskip("torch")
    from parity.record_conversion import llama3, probe

    logits, ids = llama3(tmp_path)
    convert_folder(tmp_path, tmp_path / "half.gguf")
    quantize_file(tmp_path / "half.gguf", tmp_path / "exact.gguf", find_mix("F32"))
    options = EngineConfig(n_ctx=64, n_threads=1, flash_attn=False, type_k=DType.F32, type_v=DType.F32)
    with Engine(tmp_path / "exact.gguf", options) as engine:
        assert [engine.tokenizer.encode(text) for text in TEXTS] == ids
        np.testing.assert_allclose(engine.logits(probe(300), outputs="all"), logits, rtol=0, atol=1e-4)
