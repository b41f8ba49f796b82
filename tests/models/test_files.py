"""Files that cannot be run say why, in one typed error; architectures of other packages."""

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tiny import Array, TinyConfig, build
from pyggml.engine import Engine, EngineConfig
from pyggml.errors import GGUFError, MissingTensorError, ModelError, UnsupportedArchitectureError
from pyggml.gguf import GGMLType, GGUFFile, GGUFWriter
from pyggml.models import architectures
from pyggml.models.llama import Llama

SMALL = EngineConfig(n_ctx=32, n_threads=1)


def refusal(path: Path, kind: type[Exception]) -> str:
    with pytest.raises(kind) as caught, Engine(path, SMALL):
        pass
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    model = build(tmp_path / "m.gguf", change=lambda meta, weights: weights.pop("blk.1.ffn_up.weight"))
    assert "'blk.1.ffn_up.weight' is missing" in refusal(model.path, MissingTensorError)


def test_a_misshapen_tensor_is_named_with_both_shapes(tmp_path: Path) -> None:
    def change(meta: dict[str, Any], weights: dict[str, Array]) -> None:
        weights["blk.0.attn_k.weight"] = np.zeros((32, 64))

    text = refusal(build(tmp_path / "m.gguf", change=change).path, ModelError)
    assert "'blk.0.attn_k.weight'" in text and "[64, 32]" in text and "[64, 64]" in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention.head_count", 0),
        ("attention.head_count_kv", 0),
        ("attention.key_length", 0),
        ("block_count", 0),
        ("embedding_length", 0),
        ("context_length", 0),
        ("feed_forward_length", 0),
        ("attention.head_count", 1000),
        ("attention.head_count_kv", 3),
        ("attention.key_length", 31),
        ("rope.dimension_count", 31),
        ("rope.dimension_count", 64),
        ("rope.dimension_count", 0),
        ("rope.freq_base", 0.0),
        ("rope.freq_base", float("nan")),
        ("rope.scaling.type", "cubic"),
        ("expert_count", 8),
        ("block_count", 3),
        ("block_count", 2_000_000_000),
    ],
    ids=str,
)
def test_metadata_that_makes_no_model(tmp_path: Path, key: str, value: Any) -> None:
    model = build(tmp_path / "m.gguf", change=lambda meta, weights: meta.update({f"llama.{key}": value}))
    assert refusal(model.path, ModelError)


@pytest.mark.parametrize("key", ["block_count", "embedding_length", "attention.layer_norm_rms_epsilon"])
def test_an_absent_key_is_named(tmp_path: Path, key: str) -> None:
    model = build(tmp_path / "m.gguf", change=lambda meta, weights: meta.pop(f"llama.{key}"))
    assert f"llama.{key}" in refusal(model.path, GGUFError)


@pytest.mark.parametrize("dtype", [GGMLType.F16, GGMLType.I32, GGMLType.F64], ids=lambda t: t.name)
@pytest.mark.parametrize(
    "name", ["blk.0.attn_norm.weight", "blk.0.attn_q.bias", "rope_freqs.weight", "blk.0.attn_q.weight"]
)
def test_weights_of_a_type_without_kernel(tmp_path: Path, name: str, dtype: GGMLType) -> None:
    model = build(tmp_path / "m.gguf", TinyConfig(bias=True, rope_freqs=True))
    retype(model.path, tmp_path / "r.gguf", name, dtype)
    if name.endswith("_q.weight") and dtype is GGMLType.F16:
        with Engine(tmp_path / "r.gguf", SMALL) as engine:
            assert np.isfinite(engine.logits([3, 4])).all()
    else:
        assert dtype.name in refusal(tmp_path / "r.gguf", ModelError)


def retype(source: Path, target: Path, name: str, dtype: GGMLType) -> None:
    writer = GGUFWriter(target)
    with GGUFFile(source) as file:
        for key, value in file.metadata.items():
            writer.add(key, value, type=file.types[key].type, item=file.types[key].item)
        for info in file.tensors.values():
            zeros = bytes(dtype.n_bytes(int(np.prod(info.shape))))
            data, kind = (zeros, dtype) if info.name == name else (bytes(file.data(info.name)), info.type)
            writer.add_tensor(info.name, data, type=kind, shape=info.shape)
    writer.write()


def test_an_unknown_architecture_lists_the_known(tmp_path: Path) -> None:
    model = build(tmp_path / "m.gguf", change=lambda meta, weights: meta.update({"general.architecture": "abacus"}))
    text = refusal(model.path, UnsupportedArchitectureError)
    assert "'abacus'" in text and "bert, gemma3, llama" in text and "pyggml.models" in text


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file(tmp_path: Path, keep: float) -> None:
    model = build(tmp_path / "m.gguf")
    data = model.path.read_bytes()
    model.path.write_bytes(data[: int(keep * len(data))])
    refusal(model.path, GGUFError)


def test_tensors_that_nobody_uses_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def change(meta: dict[str, Any], weights: dict[str, Array]) -> None:
        weights["blk.0.attn_q_norm.weight"] = np.ones(32)

    with Engine(build(tmp_path / "m.gguf", change=change).path, SMALL):
        pass
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "blk.0.attn_q_norm.weight" in record.getMessage()
    caplog.clear()
    with Engine(build(tmp_path / "m.gguf").path, SMALL):
        pass
    assert not caplog.records


def register(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    point = EntryPoint(name="abacus", value=value, group="pyggml.models")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: [point] if group == "pyggml.models" else [])


class Abacus(Llama):
    """Another package's architecture."""


def test_an_architecture_of_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(meta: dict[str, Any], weights: dict[str, Array]) -> None:
        for key in [key for key in meta if key.startswith("llama.")]:
            meta[f"abacus.{key.removeprefix('llama.')}"] = meta.pop(key)
        meta["general.architecture"] = "abacus"

    register(monkeypatch, f"{__name__}:Abacus")
    assert architectures() == ["abacus", "bert", "gemma3", "llama"]
    with (
        Engine(build(tmp_path / "a.gguf", change=rename).path, SMALL) as theirs,
        Engine(build(tmp_path / "b.gguf").path, SMALL) as ours,
    ):
        assert isinstance(theirs.model, Abacus)
        np.testing.assert_array_equal(theirs.logits([3, 4, 5]), ours.logits([3, 4, 5]))


@pytest.mark.parametrize("value", ["no_such_module_here:Model", f"{__name__}:NoSuchClass"])
def test_an_entry_point_that_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    register(monkeypatch, value)
    model = build(tmp_path / "m.gguf", change=lambda meta, weights: meta.update({"general.architecture": "abacus"}))
    with pytest.raises(ModelError, match="entry point"), Engine(model.path, SMALL):
        pass
