"""Adapters of PEFT against llama.cpp's converter (names, values) and PEFT itself (logits), as recorded; refusals.

``tests/parity/record_conversion.py`` made the archives.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.checkpoints import pack
from lora.lab import opened
from pyggml.convert import convert_adapter, convert_folder, find_mix
from pyggml.errors import ModelError, UnsupportedArchitectureError
from pyggml.gguf import GGUFFile, GGUFWriter
from pyggml.lora import LoraAdapter
from pyggml.quantize import quantize_file

DATA = Path(__file__).parent / "data"
CASES = ("llama3", "gemma3")


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: ``base.gguf`` in float32, ``lora/`` of PEFT, ``lora.gguf``."""
    folder = tmp_path_factory.mktemp("case") / request.param
    for name, target in ((request.param, "base"), (f"{request.param}-lora", "lora")):
        with zipfile.ZipFile(DATA / f"{name}.zip") as archive:
            archive.extractall(folder / target)
    convert_folder(folder / "base", folder / "half.gguf")
    quantize_file(folder / "half.gguf", folder / "base.gguf", find_mix("F32"))
    with GGUFFile(folder / "base.gguf") as base:
        convert_adapter(folder / "lora", folder / "lora.gguf", base=base)
    return folder


def test_names_and_values(case: Path) -> None:
    theirs = json.loads((case / "lora" / "oracle.json").read_text())
    with GGUFFile(case / "lora.gguf") as file, GGUFFile(case / "lora" / "oracle.gguf") as oracle:
        assert set(file.tensors) == set(theirs)
        for info in file.tensors.values():
            digest = hashlib.sha256(file.data(info.name)).hexdigest()
            assert [info.type.name, list(info.shape), digest] == theirs[info.name], info.name
        for key in ("general.architecture", "general.type", "adapter.type", "adapter.lora.alpha"):
            assert file.metadata[key] == oracle.metadata[key]
    with LoraAdapter(case / "lora.gguf") as adapter, GGUFFile(case / "base.gguf") as base:
        adapter.check_fits(base)


def test_logits(case: Path) -> None:
    expected = np.load(case / "lora" / "expected.npz")
    with opened(case / "base.gguf", [case / "lora.gguf"]) as lab:
        got = lab.logits(expected["ids"].tolist(), {0: 1.0})
    np.testing.assert_allclose(got, expected["logits"], rtol=0, atol=2e-2 if case.name == "gemma3" else 2e-4)
    plain = np.load(case / "base" / "expected.npz")["logits"]
    assert np.abs(plain - expected["logits"]).max() > 0.5


CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 6}
MODULE = "base_model.model.model.layers.0.mlp.down_proj"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., GGUFFile]:
    """Convert a folder of one pair for a small model."""

    def run(*, architecture: str = "llama", weights: Any = None, raw: bytes | None = None, **config: Any) -> GGUFFile:
        writer = GGUFWriter(tmp_path / "base.gguf", architecture=architecture)
        writer.add_tensor("blk.0.ffn_down.weight", np.zeros((8, 12), np.float32))
        writer.add_tensor("blk.0.attn_q.weight", np.zeros((8, 8), np.float32))
        writer.add(f"{architecture}.attention.head_count", 2)
        writer.write()
        folder = tmp_path / "peft"
        folder.mkdir(exist_ok=True)
        (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config))
        arrays = {"A": np.ones((2, 12), np.float32), "B": np.ones((8, 2), np.float32)}
        pair = {f"{MODULE}.lora_{half}.weight": array for half, array in arrays.items()}
        (folder / "adapter_model.safetensors").write_bytes(
            pack(pair if weights is None else weights) if raw is None else raw
        )
        with GGUFFile(tmp_path / "base.gguf") as base:
            convert_adapter(folder, tmp_path / "out.gguf", base=base)
        return GGUFFile(tmp_path / "out.gguf")

    return run


@pytest.mark.parametrize(
    ("config", "factor"),
    [
        ({}, 1.0),
        ({"use_rslora": True}, 2**0.5),
        ({"alpha_pattern": {"down_proj": 9}}, 1.5),
        ({"alpha_pattern": {"layers.0.mlp.down_proj": 3, "down_proj": 9}}, 0.5),
        ({"alpha_pattern": {"own_proj": 9}}, 1.0),
    ],
)
def test_scales(write: Callable[..., GGUFFile], config: dict[str, Any], factor: float) -> None:
    with write(**config) as file:
        b = np.frombuffer(file.data("blk.0.ffn_down.weight.lora_b"), np.float32)
        assert file.metadata["adapter.lora.alpha"] == 6.0
    np.testing.assert_allclose(b, factor, rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "LOHA"}, "'LOHA' are not supported"),
        ({"use_dora": True}, "use_dora is set"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is set"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is set"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens is set"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"lora_alpha": -1}, "lora_alpha is -1"),
        ({"lora_alpha": True}, "lora_alpha is True"),
        ({"lora_alpha": 1e999}, "lora_alpha is inf"),
        ({"alpha_pattern": [1]}, "alpha_pattern is no object"),
        ({"alpha_pattern": {"(a+)+": 1}}, "no plain name"),
        ({"alpha_pattern": {"x": "1"}}, "alpha_pattern is 1"),
    ],
)
def test_settings_that_gguf_does_not_have(write: Callable[..., GGUFFile], config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message.replace("(", r"\(").replace("+", r"\+")):
        write(**config)


A, B = np.ones((2, 12), np.float32), np.ones((8, 2), np.float32)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "holds no tensors"),
        ({f"{MODULE}.lora_A.weight": A}, "lacks lora_A or lora_B"),
        ({f"{MODULE}.lora_A.weight": A, f"{MODULE}.lora_B.weight": B[:, :1]}, "share no rank"),
        ({f"{MODULE}.lora_A.weight": A[:, :5], f"{MODULE}.lora_B.weight": B}, r"is for a 'blk.0.ffn_down.weight' of"),
        ({f"{MODULE}.lora_A.weight": A * np.nan, f"{MODULE}.lora_B.weight": B}, "not finite"),
        ({f"{MODULE}.lora_A.weight": A.astype(np.int16), f"{MODULE}.lora_B.weight": B}, "no matrix of floats"),
        ({f"{MODULE}.lora_A.weight": A[0], f"{MODULE}.lora_B.weight": B}, "no matrix of floats"),
        ({f"{MODULE}.weight": B}, "neither lora_A nor lora_B"),
        ({"model.layers.0.conv.lora_A.weight": A, "model.layers.0.conv.lora_B.weight": B}, "not known what"),
        (
            {"model.layers.7.mlp.down_proj.lora_A.weight": A, "model.layers.7.mlp.down_proj.lora_B.weight": B},
            "which the model does not have",
        ),
    ],
)
def test_tensors_that_do_not_fit(write: Callable[..., GGUFFile], weights: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        write(weights=weights)


def test_other_models_and_damaged_files(write: Callable[..., GGUFFile]) -> None:
    with pytest.raises(UnsupportedArchitectureError, match="'bert' cannot be converted"):
        write(architecture="bert")
    whole = pack({f"{MODULE}.lora_A.weight": A, f"{MODULE}.lora_B.weight": B})
    for n in (0, 7, 20, len(whole) - 1):
        with pytest.raises(ModelError):
            write(raw=whole[:n])
