"""Adapter files: what fits, what does not, and what is damaged."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.tiny import TinyConfig, TinyModel, build
from pyggml.errors import GGUFError, ModelError, ParameterError, PyggmlError
from pyggml.gguf import GGMLType, GGUFFile, GGUFWriter
from pyggml.lora import Adapters, LoraAdapter, write_adapter
from pyggml.tensor import find_device

from .lab import adapter, delta, opened, random_pairs

NAME = "blk.0.attn_q.weight"
META: dict[str, Any] = {
    "general.architecture": "llama",
    "general.type": "adapter",
    "adapter.type": "lora",
    "adapter.lora.alpha": 8.0,
}
A, B = np.ones((4, 64), np.float32), np.ones((128, 4), np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return build(tmp_path_factory.mktemp("lora") / "m.gguf", TinyConfig())


def write(path: Path, tensors: dict[str, Any], **changes: Any) -> Path:
    writer = GGUFWriter(path)
    for key, value in {**META, **changes}.items():
        if value is not None:
            writer.add(key, value)
    for name, data in tensors.items():
        if isinstance(data, np.ndarray):
            writer.add_tensor(name, data)
        else:
            writer.add_tensor(name, data[0], type=data[1], shape=data[2])
    writer.write()
    return path


def load(paths: list[Path], base: Path) -> None:
    with GGUFFile(base) as file, Adapters(paths, file, device_of=lambda name: find_device("CPU")):
        pass


def test_what_was_written_is_read(tmp_path: Path, model: TinyModel) -> None:
    names = ["token_embd.weight", NAME, "blk.1.ffn_down.weight"]
    pairs = random_pairs(model.path, names, rank=3, seed=1)
    write_adapter(tmp_path / "a.gguf", pairs, architecture="llama", alpha=6.0, name="mine")
    with LoraAdapter.open(tmp_path / "a.gguf") as opened:
        assert (opened.name, opened.alpha, opened.architecture) == ("mine", 6.0, "llama")
        assert list(opened.pairs) == names
        for name, pair in opened.pairs.items():
            a, b = pairs[name]
            assert (pair.rank, pair.factor) == (3, 2.0)
            assert pair.target_shape == model.weights[name].shape[::-1]
            stored = np.frombuffer(opened.data(pair.a), np.float32).reshape(pair.a.numpy_shape)
            np.testing.assert_array_equal(stored, a.T if name == "token_embd.weight" else a)
            np.testing.assert_array_equal(np.frombuffer(opened.data(pair.b), np.float32).reshape(b.shape), b)
        with GGUFFile(model.path) as file:
            opened.check_fits(file)


def test_the_writer_refuses_what_is_no_pair(tmp_path: Path) -> None:
    for a, b in ((A, B.T), (A[0], B), (A[:3], B)):
        with pytest.raises(ModelError, match=NAME):
            write_adapter(tmp_path / "a.gguf", {NAME: (a, b)}, architecture="llama", alpha=1.0)
    with pytest.raises(ModelError, match="Q8_0"):
        write_adapter(tmp_path / "a.gguf", {NAME: (A, B)}, architecture="llama", alpha=1.0, dtype=GGMLType.Q8_0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.type": "model"}, "general.type is 'model'"),
        ({"general.type": None}, "general.type is ''"),
        ({"adapter.type": "other"}, "adapter.type is 'other'"),
        ({"general.architecture": None}, "'general.architecture': is required"),
        ({"general.architecture": "gemma3"}, "for 'gemma3' models.*is 'llama'"),
        ({"adapter.lora.alpha": "8"}, "adapter.lora.alpha"),
        ({"adapter.lora.alpha": float("nan")}, "adapter.lora.alpha is nan"),
        ({"adapter.lora.alpha": -1.0}, "adapter.lora.alpha is -1"),
        ({"adapter.alora.invocation_tokens": [1, 2]}, "activated LoRA"),
    ],
    ids=str,
)
def test_metadata_of_no_adapter(tmp_path: Path, model: TinyModel, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "bad.gguf", {f"{NAME}.lora_a": A, f"{NAME}.lora_b": B}, **changes)
    with pytest.raises((ModelError, GGUFError), match=message) as caught:
        load([path], model.path)
    assert "bad.gguf" in str(caught.value)


QUANTIZED = (bytes(GGMLType.Q4_0.n_bytes(256)), GGMLType.Q4_0, (64, 4))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "holds no tensors"),
        ({f"{NAME}.lora_a": A}, rf"'{NAME}.lora_b' is missing"),
        ({f"{NAME}.lora_b": B}, rf"'{NAME}.lora_a' is missing"),
        ({NAME: A}, rf"'{NAME}' is neither"),
        ({".lora_a": A, ".lora_b": B}, "neither"),
        ({f"{NAME}.lora_a": A.T.copy(), f"{NAME}.lora_b": B}, r"\[4, 64\] and \[4, 128\], which share no rank"),
        ({f"{NAME}.lora_a": A, f"{NAME}.lora_b": B[:64]}, r"\[64, 64\]; in .*m.gguf it has \[64, 128\]"),
        ({f"{NAME}.lora_a": A[:, :32].copy(), f"{NAME}.lora_b": B}, r"\[32, 128\]; in .*m.gguf it has \[64, 128\]"),
        ({f"{NAME}.lora_a": A[None].repeat(2, 0), f"{NAME}.lora_b": B}, r"\[64, 4, 2\]; it is no matrix"),
        ({f"{NAME}.lora_a": A[:0], f"{NAME}.lora_b": B}, "it is no matrix"),
        ({f"{NAME}.lora_a": QUANTIZED, f"{NAME}.lora_b": B}, "is Q4_0; adapters hold F32, F16, BF16, Q8_0"),
        ({f"{NAME}.lora_a": A * np.float32("nan"), f"{NAME}.lora_b": B}, "lora_a' holds values that are not finite"),
        ({f"{NAME}.lora_a": A, f"{NAME}.lora_b": B * np.float32("inf")}, "lora_b' holds values that are not finite"),
        ({"blk.9.attn_q.weight.lora_a": A, "blk.9.attn_q.weight.lora_b": B}, "'blk.9.attn_q.weight', which .*m.gguf"),
    ],
    ids=str,
)
def test_tensors_that_do_not_fit(tmp_path: Path, model: TinyModel, tensors: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "bad.gguf", tensors)
    with pytest.raises(ModelError, match=message) as caught:
        load([path], model.path)
    assert "bad.gguf" in str(caught.value)


def test_norms_are_left_out_with_a_warning(tmp_path: Path, model: TinyModel, caplog: pytest.LogCaptureFixture) -> None:
    tensors = {f"{NAME}.lora_a": A, f"{NAME}.lora_b": B, "blk.0.attn_norm.weight": np.ones(64, np.float32)}
    load([write(tmp_path / "a.gguf", tensors)], model.path)
    assert "1 norms" in caplog.text and "a.gguf" in caplog.text


def test_a_tensor_that_is_not_multiplied(tmp_path: Path) -> None:
    model = build(tmp_path / "m.gguf", TinyConfig("bert", n_head=2))
    pairs = random_pairs(model.path, ["position_embd.weight", "token_types.weight"], rank=2, seed=1)
    path = adapter(tmp_path / "a.gguf", model.path, {"token_types.weight": pairs["token_types.weight"]}, alpha=1.0)
    message = r"a\.gguf: .*'token_types.weight', which the model has but does not use"
    with pytest.raises(ModelError, match=message), opened(model.path, [path]):
        pass


def test_scales_that_do_not_fit(tmp_path: Path, model: TinyModel) -> None:
    pairs = random_pairs(model.path, [NAME], rank=2, seed=1)
    path = adapter(tmp_path / "a.gguf", model.path, pairs, alpha=1.0)
    with opened(model.path, [path]) as lab:
        for scales, message in (
            ({1: 1.0}, "adapter 1: there are 1 adapters"),
            ({-1: 1.0}, "adapter -1"),
            ({0: float("nan")}, "2 finite numbers"),
        ):
            with pytest.raises(ParameterError, match=message):
                lab.logits([3, 4], scales)
        assert lab.engine.cache.can_resume(0, 0) and not lab.engine.cache.can_resume(0, 1)
    with opened(model.path, []) as lab, pytest.raises(ParameterError, match="there are 0 adapters"):
        lab.logits([3, 4], {0: 1.0})


def test_several_rows_per_token(tmp_path: Path, model: TinyModel) -> None:
    """A layer may be applied to a matrix per token; there is one scale per token all the same."""
    pairs = random_pairs(model.path, [NAME], rank=2, seed=1)
    path = adapter(tmp_path / "a.gguf", model.path, pairs, alpha=2.0)
    random = np.random.default_rng(2)
    change = delta(pairs[NAME], 2.0).astype(np.float32)
    with opened(model.path, [path]) as lab:
        adapters = lab.decoder.adapters
        assert adapters is not None
        for n in (1, 3, 5):
            x, y = random.normal(size=(n, 3, 64)).astype(np.float32), random.normal(size=(n, 3, 128)).astype(np.float32)
            scales = random.normal(size=n).astype(np.float32)
            with adapters.graph() as graph:
                inputs = [graph.input_like(array) for array in (x, y)]
                overlay = adapters.overlay(graph, (0,), n_tokens=n, output_rows=None)
                out = graph.output(overlay.linear(NAME, *inputs))
                lab.engine.executor.allocate(graph)
                for tensor, array in zip(inputs, (x, y), strict=True):
                    tensor.set_bytes(array)
                overlay.set_inputs({0: scales})
                lab.engine.executor.compute(graph)
                want = y + scales[:, None, None] * (x @ change.T)
                np.testing.assert_allclose(out.numpy().reshape(y.shape), want, rtol=0, atol=1e-5)


def test_nothing_is_left_open_after_a_failure(tmp_path: Path, model: TinyModel) -> None:
    good = write(tmp_path / "good.gguf", {f"{NAME}.lora_a": A, f"{NAME}.lora_b": B})
    with pytest.raises(FileNotFoundError):
        load([good, tmp_path / "absent.gguf"], model.path)


def damaged(data: bytes, edits: list[tuple[int, int]], cut: int | None) -> bytes:
    changed = bytearray(data)
    for place, value in edits:
        changed[place % len(changed)] = value
    return bytes(changed if cut is None else changed[: cut % len(changed)])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, 800), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.one_of(st.none(), st.integers(0, 10**4)),
)
def test_damaged_files(tmp_path: Path, model: TinyModel, edits: list[tuple[int, int]], cut: int | None) -> None:
    """An error of the library, or an adapter that fits the model: nothing else."""
    path = write(tmp_path / "a.gguf", {f"{NAME}.lora_a": A, f"{NAME}.lora_b": B})
    path.write_bytes(damaged(path.read_bytes(), edits, cut))
    with suppress(PyggmlError):
        load([path], model.path)
        with LoraAdapter(path) as fits, GGUFFile(model.path) as file:
            fits.check_fits(file)
            for pair in fits.pairs.values():
                assert pair.target_shape == file.tensors[pair.target].shape
