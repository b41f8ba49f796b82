"""Folders that are broken or hostile: an error that names the thing, never a crash, never a file."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convert.checkpoints import pack
from pyggml.convert import SafetensorsFile, convert_folder
from pyggml.errors import MissingTensorError, ModelError, PyggmlError, TokenizerError
from pyggml.gguf import GGUFFile

DATA = Path(__file__).parent / "data"
Edit = Callable[..., Path]


@pytest.fixture
def edit(tmp_path: Path) -> Edit:
    """A recorded folder with changes, its weights in one file."""

    def run(name: str = "llama3", *, drop: str = "", change: Any = None, files: Any = None, **config: Any) -> Path:
        folder = tmp_path / name
        shutil.rmtree(folder, ignore_errors=True)
        with zipfile.ZipFile(DATA / f"{name}.zip") as archive:
            archive.extractall(folder)
        arrays: dict[str, np.ndarray] = {}
        for path in folder.glob("*.safetensors"):
            with SafetensorsFile(path) as file:
                arrays |= {key: file.numpy(key) for key in file.tensors if key != drop}
            path.unlink()
        (folder / "model.safetensors.index.json").unlink(missing_ok=True)
        (folder / "model.safetensors").write_bytes(pack(arrays | (change or {})))
        settings = json.loads((folder / "config.json").read_text()) | config
        (folder / "config.json").write_text(json.dumps(settings))
        for key, text in (files or {}).items():
            (folder / key).unlink(missing_ok=True)
            if text is not None:
                (folder / key).write_text(text)
        return folder

    return run


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_size": 64}, r"has the shape \[\d+(, 32)?\], config.json asks for"),
        ({"num_hidden_layers": 3}, "becomes 'blk.2.attn_q.weight' is missing"),
        ({"num_hidden_layers": 1}, "no room for blk.1"),
        ({"num_hidden_layers": 10**9}, "cannot lie in"),
        ({"num_attention_heads": 0}, "'num_attention_heads' is 0"),
        ({"num_attention_heads": "4"}, "'num_attention_heads' is '4'"),
        ({"num_key_value_heads": 4}, "config.json asks for"),
        ({"head_dim": 7}, "cannot be rotated in pairs"),
        ({"hidden_act": "relu"}, "'relu' is not supported, silu is"),
        ({"max_position_embeddings": 2**40}, "a positive integer is needed"),
        ({"rms_norm_eps": "x"}, "a number is needed"),
        ({"rms_norm_eps": float("nan")}, "a number is needed"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "'longrope' is not supported"),
        ({"rope_parameters": [1]}, "is no object"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2}}, "'original_max_position_embeddings' is None"),
        ({"rope_parameters": {"rope_type": "llama3", "low_freq_factor": 9.0}}, "make no range"),
        ({"rope_parameters": {"rope_theta": 0}}, "base of the frequencies"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"quantization_config": {"quant_method": "gptq"}}, "were quantized by gptq"),
        ({"architectures": ["MixtralForCausalLM"]}, "unsupported architecture 'MixtralForCausalLM'"),
        ({"architectures": "LlamaForCausalLM"}, "names no model class"),
    ],
)
def test_configurations(edit: Edit, tmp_path: Path, config: dict[str, Any], message: str) -> None:
    folder = edit(**config)
    with pytest.raises(ModelError, match=message):
        convert_folder(folder, tmp_path / "out.gguf")
    assert not list(tmp_path.glob("*.gguf")) and not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"layer_types": ["full_attention", "sliding_attention", "full_attention"] + ["sliding_attention"] * 4},
            "no pat",
        ),
        ({"layer_types": ["full_attention"]}, "does not name 7 layers"),
        ({"query_pre_attn_scalar": 256}, "implies 16"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"use_bidirectional_attention": True}, "EmbeddingGemma"),
        ({"hidden_activation": "gelu"}, "'gelu' is not supported"),
        ({"sliding_window": None}, "'sliding_window' is None"),
    ],
)
def test_configurations_of_gemma3(edit: Edit, tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        convert_folder(edit("gemma3", **config), tmp_path / "out.gguf")


NORM = "model.layers.1.input_layernorm.weight"


def test_tensors(edit: Edit, tmp_path: Path) -> None:
    with pytest.raises(MissingTensorError, match=r"becomes 'blk\.1\.attn_norm\.weight' is missing"):
        convert_folder(edit(drop=NORM), tmp_path / "out.gguf")
    with pytest.raises(ModelError, match=r"embed_tokens\.weight\) is missing"):
        convert_folder(edit(drop="model.embed_tokens.weight"), tmp_path / "out.gguf")
    for change, message in (
        ({"model.layers.0.mlp.surprise.weight": np.zeros(3, np.float32)}, "not known what the tensor 'model.layers.0"),
        ({NORM: np.zeros(32, np.int64)}, "holds I64, floats are needed"),
        ({NORM: np.zeros(31, np.float32)}, r"has the shape \[31\], config.json asks for \[32\]"),
        ({"model.embed_tokens.weight": np.zeros((10, 32), np.float32)}, r"each of the 10 rows|has the shape"),
    ):
        with pytest.raises((ModelError, TokenizerError), match=message):
            convert_folder(edit(change=change), tmp_path / "out.gguf")


def test_numbers_beyond_16_bits_stay_in_32(edit: Edit, tmp_path: Path) -> None:
    big = np.full((336, 32), 1e6, np.float32)
    convert_folder(edit(change={"lm_head.weight": big}), tmp_path / "out.gguf")
    with GGUFFile(tmp_path / "out.gguf") as file:
        assert file.tensors["output.weight"].type.name == "F32"
        assert file.tensors["token_embd.weight"].type.name == "F16"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer.json": None}, "neither tokenizer.json nor tokenizer.model"),
        ({"tokenizer.json": "{"}, "tokenizer.json: is not valid JSON"),
        ({"tokenizer.json": "[" * 100000}, "tokenizer.json: is not valid JSON"),
        ({"tokenizer_config.json": "[]"}, "holds no JSON object"),
        ({"tokenizer_config.json": '{"added_tokens_decoder": {"x": {"content": "y"}}}'}, "is no added token"),
        ({"added_tokens.json": '{"x": "y"}'}, "has the id y"),
        ({"model.safetensors.index.json": '{"weight_map": {"a": "../../etc/passwd"}}'}, "points outside"),
        ({"model.safetensors.index.json": '{"weight_map": {"a": "gone.safetensors"}}'}, "weights are missing"),
        ({"model.safetensors.index.json": '{"weight_map": 3}'}, "weights are missing"),
    ],
)
def test_files(edit: Edit, tmp_path: Path, files: dict[str, str | None], message: str) -> None:
    with pytest.raises((ModelError, TokenizerError), match=message):
        convert_folder(edit(files=files), tmp_path / "out.gguf")


SCALARS = st.none() | st.booleans() | st.integers(-2, 2**40) | st.floats() | st.text(max_size=4)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=4), SCALARS, max_size=2)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_anywhere(edit: Edit, tmp_path: Path, data: st.DataObject) -> None:
    """One value of one JSON file replaced: converted, or refused by a typed error."""
    folder = edit(data.draw(st.sampled_from(["llama3", "gemma3", "llama-fallback"])))
    names = sorted(path.name for path in folder.glob("*.json") if path.name != "oracle.json")
    path = folder / data.draw(st.sampled_from(names))
    document: Any = json.loads(path.read_text())
    at = document
    while True:
        key = data.draw(st.sampled_from(list(at) if isinstance(at, dict) else range(len(at))))
        inner = at[key]
        if not inner or not isinstance(inner, dict | list) or data.draw(st.booleans()):
            break
        at = inner
    at[key] = data.draw(VALUES)
    path.write_text(json.dumps(document))
    try:
        convert_folder(folder, tmp_path / "fuzz.gguf")
    except PyggmlError:
        return
    with GGUFFile(tmp_path / "fuzz.gguf"):
        pass


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 60000), junk=st.binary(min_size=1, max_size=4))
def test_damaged_weights(edit: Edit, tmp_path: Path, position: int, junk: bytes) -> None:
    folder = edit("llama3")
    raw = (folder / "model.safetensors").read_bytes()
    position %= 4000
    (folder / "model.safetensors").write_bytes(raw[:position] + junk + raw[position + len(junk) :])
    try:
        convert_folder(folder, tmp_path / "fuzz.gguf")
    except PyggmlError:
        return
