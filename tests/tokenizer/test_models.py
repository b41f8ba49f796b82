"""The vocabularies of the real test models, against what llama.cpp makes of the recorded prompts."""

from pathlib import Path

import pytest

from parity.goldens import load_goldens
from pyggml.gguf import GGUFFile
from pyggml.tokenizer import Tokenizer

pytestmark = pytest.mark.model


@pytest.mark.parametrize(("model", "fixture"), [("smollm2", "smollm2_path"), ("gemma3-270m", "gemma3_path")])
def test_ids_equal_the_recorded_ones(model: str, fixture: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    path: Path = request.getfixturevalue(fixture)
    with GGUFFile(path) as file:
        fresh = Tokenizer.from_metadata(file.metadata, cache_dir=tmp_path)
        cached = Tokenizer.from_metadata(file.metadata, cache_dir=tmp_path)
    for case in load_goldens(model).cases:
        expected = case.prompt_ids.tolist()
        assert fresh.encode(case.text, parse_special=case.parse_special) == expected, case.name
        assert cached.encode(case.text, parse_special=case.parse_special) == expected, case.name
        assert fresh.decode(expected, skip_special=not case.parse_special).removeprefix("<bos>") == case.text
