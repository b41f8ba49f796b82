"""What the metadata says of rotary positions."""

from pathlib import Path
from typing import Any

import pytest

from pyggml.errors import ModelError, ParameterError
from pyggml.gguf import GGUFFile, GGUFWriter, ModelMetadata
from pyggml.nn import RopeMode, RopeParams, rope_params


def params(tmp_path: Path, **keys: Any) -> RopeParams:
    path = tmp_path / "m.gguf"
    writer = GGUFWriter(path, architecture="llama")
    writer.add("llama.context_length", 8192)
    for key, value in keys.items():
        writer.add("llama.rope." + key.replace("__", "."), value)
    writer.write()
    with GGUFFile(path) as file:
        return rope_params(ModelMetadata(file), mode=RopeMode.NEOX, n_dims=64)


def test_nothing_said(tmp_path: Path) -> None:
    assert params(tmp_path) == RopeParams(64, RopeMode.NEOX, n_ctx_orig=8192, freq_base=10000.0)


@pytest.mark.parametrize(
    ("keys", "scale", "ext"),
    [
        ({"scaling__type": "linear", "scaling__factor": 4.0}, 0.25, 0.0),
        ({"scaling__factor": 4.0}, 0.25, 0.0),  # linear is the default, as in llama.cpp
        ({"scale_linear": 2.0}, 0.5, 0.0),  # the key of old files
        ({"scaling__type": "linear"}, 1.0, 0.0),
        ({"scaling__type": "linear", "scaling__factor": 0.0}, 1.0, 0.0),
        ({"scaling__type": "none", "scaling__factor": 4.0}, 1.0, 0.0),
        ({"scaling__type": "yarn", "scaling__factor": 4.0}, 0.25, 1.0),
    ],
    ids=str,
)
def test_scaling(tmp_path: Path, keys: dict[str, Any], scale: float, ext: float) -> None:
    found = params(tmp_path, **keys)
    assert (found.freq_scale, found.ext_factor) == (scale, ext)


def test_the_factors_of_yarn(tmp_path: Path) -> None:
    yarn = {"scaling__type": "yarn", "scaling__factor": 4.0, "scaling__yarn_attn_factor": 0.5}
    some = params(tmp_path, **yarn, scaling__yarn_ext_factor=0.5)
    assert (some.ext_factor, some.attn_factor) == (0.5, 1.0)  # as in llama.cpp, the scale says the factor
    none = params(tmp_path, **yarn, scaling__yarn_ext_factor=0.0)
    assert (none.ext_factor, none.attn_factor) == (0.0, 0.5)


def test_the_other_numbers(tmp_path: Path) -> None:
    found = params(
        tmp_path,
        freq_base=500000.0,
        dimension_count=32,
        scaling__type="yarn",
        scaling__factor=8.0,
        scaling__original_context_length=2048,
        scaling__attn_factor=0.5,
        scaling__yarn_beta_fast=16.0,
        scaling__yarn_beta_slow=2.0,
    )
    assert found == RopeParams(32, RopeMode.NEOX, 2048, 500000.0, 0.125, 1.0, 0.5, 16.0, 2.0)


def test_an_unknown_scaling(tmp_path: Path) -> None:
    for kind in ("cubic", "longrope"):
        with pytest.raises(ModelError, match=rf"scaling\.type '{kind}' is not supported; supported: none, linear"):
            params(tmp_path, scaling__type=kind)
    with pytest.raises(ParameterError, match="n_dims must be even"):
        params(tmp_path, dimension_count=33)
