"""Quantization of files: which type goes where, what comes out, and that llama.cpp makes the same bytes."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pyggml.convert import MIXES, MixModel, choose_types, find_mix, sort_key
from pyggml.errors import ParameterError
from pyggml.gguf import GGMLType, GGUFFile, GGUFWriter, TensorInfo, file_type_name
from pyggml.quantize import quantize_file
from pyggml.tensor import quantize

T = GGMLType
# two minutes; IQ4_NL takes as long and has the same search
_SLOW = {"IQ4_XS": pytest.mark.slow}


def _info(name: str, *shape: int, type: GGMLType = T.F16) -> TensorInfo:
    n = int(np.prod(shape))
    return TensorInfo(name=name, shape=shape, type=type, offset=0, n_bytes=type.n_bytes(n), part=0)


def _model(n_layer: int = 16, *, tied: bool = True, n: int = 512) -> list[TensorInfo]:
    tensors = [_info("token_embd.weight", n, 100), _info("output_norm.weight", n, type=T.F32)]
    tensors += [] if tied else [_info("output.weight", n, 100)]
    for i in range(n_layer):
        names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_gate", "ffn_down")
        tensors += [_info(f"blk.{i}.{name}.weight", n, 128) for name in names]
        tensors += [_info(f"blk.{i}.attn_norm.weight", n, type=T.F32), _info(f"blk.{i}.attn_q.bias", n)]
    return sorted(tensors, key=lambda info: sort_key(info.name))


def _types(mix: str, tensors: list[TensorInfo], model: MixModel | None = None) -> dict[str, GGMLType]:
    return choose_types(tensors, find_mix(mix), model or MixModel())


def test_q4_k_m_gives_more_bits_to_some_layers() -> None:
    types = _types("Q4_K_M", _model())
    more = [i for i in range(16) if types[f"blk.{i}.attn_v.weight"] is T.Q6_K]
    # i < n/8, i >= 7n/8, and every third between: the table of the reference
    assert more == [0, 1, 4, 7, 10, 13, 14, 15]
    assert more == [i for i in range(16) if types[f"blk.{i}.ffn_down.weight"] is T.Q6_K]
    assert types["token_embd.weight"] is T.Q6_K
    assert types["blk.3.attn_q.weight"] is T.Q4_K
    assert types["blk.3.attn_norm.weight"] is T.F32 and types["blk.3.attn_q.bias"] is T.F16


def test_an_output_of_its_own_takes_the_bits() -> None:
    types = _types("Q4_K_S", _model(tied=False))
    assert types["output.weight"] is T.Q6_K and types["token_embd.weight"] is T.Q4_K
    assert [types[f"blk.{i}.attn_v.weight"].name for i in (0, 3, 4)] == ["Q5_K", "Q5_K", "Q4_K"]
    assert [types[f"blk.{i}.ffn_down.weight"].name for i in (0, 1, 2)] == ["Q5_K", "Q5_K", "Q4_K"]


def test_eight_experts_keep_attention_precise() -> None:
    types = _types("Q4_K_M", _model(), MixModel(n_expert=8))
    names = ("attn_k", "attn_v", "attn_output", "attn_q")
    assert [types[f"blk.3.{name}.weight"].name for name in names] == ["Q8_0", "Q8_0", "Q5_K", "Q4_K"]


@pytest.mark.parametrize(
    ("mix", "n", "expected"),
    [("Q4_K_M", 96, "Q5_0"), ("Q5_K_S", 96, "Q5_1"), ("Q6_K", 96, "Q8_0"), ("Q4_K_M", 33, "F16"), ("Q2_K", 32, "Q4_0")],
)
def test_rows_that_do_not_fit_get_smaller_blocks(mix: str, n: int, expected: str) -> None:
    assert _types(mix, _model(n=n))["blk.3.ffn_up.weight"].name == expected


def test_names_of_mixes() -> None:
    assert find_mix("q4_k").name == "Q4_K_M" and find_mix("bf16").base is T.BF16
    with pytest.raises(ParameterError, match="unsupported quantization type Q9 - supported types are F32, F16"):
        find_mix("Q9")


def _write(path: Path) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    writer = GGUFWriter(path, architecture="llama")
    writer.add("general.file_type", 0)
    writer.add("llama.attention.head_count", 8)
    arrays = {"token_embd.weight": random.normal(size=(5000, 256)).astype(np.float32)}
    arrays |= {f"blk.{i}.ffn_up.weight": random.normal(size=(300, 512)).astype(np.float32) for i in (10, 2)}
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    writer.add("tokenizer.ggml.tokens", ["a", "ü", "c"])
    writer.write()
    return arrays


def test_a_file(tmp_path: Path) -> None:
    arrays, news = _write(tmp_path / "a.gguf"), list[tuple[int, int]]()
    quantize_file(tmp_path / "a.gguf", tmp_path / "b.gguf", find_mix("q8_0"), progress=lambda *n: news.append(n))
    total = sum(array.nbytes for array in arrays.values())
    assert news[-1] == (total, total) and len(news) > 2 and [done for done, _ in news] == sorted(d for d, _ in news)
    with GGUFFile(tmp_path / "b.gguf") as file:
        assert list(file.tensors) == ["token_embd.weight", "blk.2.ffn_up.weight", "blk.10.ffn_up.weight"]
        assert file_type_name(file) == "Q8_0" and file.metadata["general.quantization_version"] == 2
        assert file.metadata["tokenizer.ggml.tokens"] == ["a", "ü", "c"]
        for name, array in arrays.items():
            assert bytes(file.data(name)) == quantize(array, T.Q8_0).tobytes()
    with pytest.raises(ParameterError, match=r"only supported for F16 and F32.*Q8_0 already"):
        quantize_file(tmp_path / "b.gguf", tmp_path / "c.gguf", find_mix("q4_0"))
    assert not (tmp_path / "c.gguf").exists()


def test_the_child_process(tmp_path: Path) -> None:
    _write(tmp_path / "a.gguf")
    command = [sys.executable, "-m", "pyggml.quantize", str(tmp_path / "a.gguf"), str(tmp_path / "b.gguf"), "q5_1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1] == {"done": True} and events[-2]["completed"] == events[-2]["total"]
    with GGUFFile(tmp_path / "b.gguf") as file:
        assert file_type_name(file) == "Q5_1"
    command[3] = str(tmp_path / "none.gguf")
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1 and "none.gguf" in json.loads(failed.stdout)["error"]


@pytest.mark.parity
@pytest.mark.model
@pytest.mark.parametrize("mix", [pytest.param(name, marks=_SLOW.get(name, ())) for name in MIXES if name != "IQ4_NL"])
def test_llama_cpp_makes_the_same_file(
    mix: str, smollm2_path: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    library = os.environ.get("PYGGML_LLAMA_LIB")
    if library is None:
        pytest.skip("PYGGML_LLAMA_LIB is not set: llama-quantize is looked for beside that library")
    source = tmp_path_factory.getbasetemp() / "smollm2-f16.gguf"
    if not source.exists():
        quantize_file(smollm2_path, source, find_mix("F16"), requantize=True)
    quantize_file(source, tmp_path / "ours.gguf", find_mix(mix))
    command = [str(Path(library).with_name("llama-quantize")), str(source), str(tmp_path / "theirs.gguf"), mix, "2"]
    subprocess.run(command, capture_output=True, check=True)
    assert _hash(tmp_path / "ours.gguf") == _hash(tmp_path / "theirs.gguf")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
