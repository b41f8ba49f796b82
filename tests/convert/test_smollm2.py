"""SmolLM2's GGUF file taken apart into the folder that it came from, and put together again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.checkpoints import pack
from pyggml.convert import convert_folder, find_mix
from pyggml.engine import Engine, EngineConfig
from pyggml.gguf import GGUFFile
from pyggml.quantize import quantize_file

pytestmark = pytest.mark.model

NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "token_embd": "model.embed_tokens", "output_norm": "model.norm",
}  # fmt: skip


def _halves(array: np.ndarray, n_head: int) -> np.ndarray:
    """Pairs side by side to first halves and second ones, spelled out row by row."""
    width = array.shape[0] // n_head
    order = [h * width + r for h in range(n_head) for r in [*range(0, width, 2), *range(1, width, 2)]]
    return array[order]


def _weights(file: GGUFFile) -> dict[str, np.ndarray]:
    found = {}
    for info in file.tensors.values():
        dtype = {"F16": np.float16, "F32": np.float32}[info.type.name]
        array = np.frombuffer(file.data(info.name), dtype).reshape(info.numpy_shape)
        *block, name = info.name.removesuffix(".weight").split(".")
        for kind, key in (("attn_q", "head_count"), ("attn_k", "head_count_kv")):
            if name == kind:
                array = _halves(array, int(file.metadata[f"llama.attention.{key}"]))
        prefix = f"model.layers.{block[1]}." if block else ""
        found[f"{prefix}{NAMES[name]}.weight"] = array
    return found


def _tokenizer(meta: Any) -> dict[str, Any]:
    tokens, types = list(meta["tokenizer.ggml.tokens"]), meta["tokenizer.ggml.token_type"].tolist()
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    steps = [{"type": "Digits", "individual_digits": True}, byte_level]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [{"id": i, "content": tokens[i], "special": True, **flags} for i, kind in enumerate(types) if kind == 3]
    model = {"type": "BPE", "vocab": {text: i for i, text in enumerate(tokens)}}
    model["merges"] = list(meta["tokenizer.ggml.merges"])
    return {
        "version": "1.0", "added_tokens": added, "model": model, "decoder": byte_level,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
    }  # fmt: skip


def _config(meta: Any) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "tie_word_embeddings": True,
        "hidden_size": int(meta["llama.embedding_length"]), "num_hidden_layers": int(meta["llama.block_count"]),
        "intermediate_size": int(meta["llama.feed_forward_length"]),
        "num_attention_heads": int(meta["llama.attention.head_count"]),
        "num_key_value_heads": int(meta["llama.attention.head_count_kv"]),
        "max_position_embeddings": int(meta["llama.context_length"]),
        "rms_norm_eps": float(meta["llama.attention.layer_norm_rms_epsilon"]),
        "rope_theta": float(meta["llama.rope.freq_base"]),
    }  # fmt: skip


def _text(meta: Any, role: str) -> str:
    return str(meta["tokenizer.ggml.tokens"][int(meta[f"tokenizer.ggml.{role}_token_id"])])


def test_there_and_back(smollm2_path: Path, tmp_path: Path) -> None:
    quantize_file(smollm2_path, tmp_path / "f16.gguf", find_mix("F16"), requantize=True)
    folder = tmp_path / "folder"
    folder.mkdir()
    with GGUFFile(tmp_path / "f16.gguf") as file:
        meta = file.metadata
        (folder / "model.safetensors").write_bytes(pack(_weights(file)))
        (folder / "config.json").write_text(json.dumps(_config(meta)))
        (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(meta)))
        tokens = {f"{role}_token": _text(meta, role) for role in ("bos", "eos")}
        settings = {**tokens, "chat_template": meta["tokenizer.chat_template"]}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    convert_folder(folder, tmp_path / "back.gguf")
    with GGUFFile(tmp_path / "f16.gguf") as file, GGUFFile(tmp_path / "back.gguf") as back:
        for key in back.metadata:
            if key in file.metadata and not key.startswith("general."):
                assert np.array_equal(file.metadata[key], back.metadata[key]), key
        # the fingerprint of the whole vocabulary, as llama.cpp takes it
        assert back.metadata["tokenizer.ggml.pre"] == file.metadata["tokenizer.ggml.pre"] == "smollm"
        assert {n: file.data(n).tobytes() for n in file.tensors} == {n: back.data(n).tobytes() for n in back.tensors}
    answers = []
    for name in ("f16.gguf", "back.gguf"):
        with Engine(tmp_path / name, EngineConfig(n_ctx=64, n_threads=1)) as engine:
            ids = engine.tokenizer.encode("The three primary colours are 1, 2,")
            answers.append((ids, engine.logits(ids)[0].argmax()))
    assert answers[0] == answers[1]
