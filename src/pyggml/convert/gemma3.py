"""Gemma 3, the text part, to GGUF's architecture ``gemma3``."""

import logging
import re
from typing import Final

import numpy as np

from pyggml.convert.checkpoint import Checkpoint
from pyggml.convert.fast_tokenizer import read_fast_tokenizer
from pyggml.convert.llama import DECODER_NAMES, check_activation, embedding_rows
from pyggml.convert.rope import read_rope
from pyggml.convert.sentencepiece import read_sentencepiece
from pyggml.convert.special_tokens import TokenizerFiles
from pyggml.convert.vocabulary import add_tokens, fit_rows, write_vocabulary
from pyggml.convert.weights import Target, add_weights, rename
from pyggml.errors import ModelError, TokenizerError
from pyggml.gguf import GGUFWriter

__all__ = ["GEMMA3_NAMES", "write_gemma3"]

log = logging.getLogger("pyggml.convert")

GEMMA3_NAMES: Final = (
    *DECODER_NAMES,
    (r"model\.layers\.(\d+)\.self_attn\.([qk])_norm\.weight", r"blk.\1.attn_\2_norm.weight"),
    (r"model\.layers\.(\d+)\.post_attention_layernorm\.weight", r"blk.\1.post_attention_norm.weight"),
    (r"model\.layers\.(\d+)\.pre_feedforward_layernorm\.weight", r"blk.\1.ffn_norm.weight"),
    (r"model\.layers\.(\d+)\.post_feedforward_layernorm\.weight", r"blk.\1.post_ffw_norm.weight"),
)
"""All names of the text part of a Gemma 3."""
_UNUSED: Final = r".*\.rotary_emb\.inv_freq"
# how the same model is wrapped where it also sees: old and new layout of transformers
_WRAPPERS: Final = (("language_model.model.", "model."), ("language_model.lm_head.", "lm_head."),
                    ("model.language_model.", "model."))  # fmt: skip
_VISION: Final = re.compile(r"(model\.)?(vision_tower|multi_modal_projector)\.")
# what published configurations leave out
_N_CTX, _N_HEAD, _N_HEAD_KV, _HEAD, _EPS, _BASE, _PATTERN = 131072, 8, 4, 256, 1e-6, 1_000_000.0, 6
# the layers of Gemma 3 27B, which alone scales queries by its width per head
_LAYERS_27B: Final = 62


def write_gemma3(checkpoint: Checkpoint, writer: GGUFWriter) -> None:
    """Put the text part of a Gemma 3 model into a GGUF writer.

    Args:
        checkpoint: The model folder.
        writer: Made with ``architecture="gemma3"``.

    Raises:
        ModelError: a variant that GGUF's ``gemma3`` does not describe, or weights that do not fit.
        MissingTensorError: weights are missing.
        TokenizerError: the vocabulary is missing or does not fit.
    """
    check_activation(checkpoint, "hidden_activation", ("gelu_pytorch_tanh", "gelu_tanh"))
    _check_variant(checkpoint)
    found = _find(checkpoint)
    n_rows = embedding_rows(checkpoint, found)
    _add_metadata(checkpoint, writer)
    _add_vocabulary(checkpoint, writer, n_rows=n_rows)
    writer.add("general.file_type", add_weights(checkpoint, writer, found=found, targets=_targets(checkpoint, n_rows)))


def _check_variant(checkpoint: Checkpoint) -> None:
    config, path = checkpoint.config, checkpoint.folder / "config.json"
    if config.get("attn_logit_softcapping") is not None:
        raise ModelError(f"{path}: attn_logit_softcapping is not supported for gemma3")
    if config.get("use_bidirectional_attention"):
        raise ModelError(f"{path}: bidirectional attention (EmbeddingGemma) is not supported")
    n_embd, n_head, head = _sizes(checkpoint)
    scale = checkpoint.number("query_pre_attn_scalar", default=float(head))
    expected = n_embd / n_head if checkpoint.layers() == _LAYERS_27B else head
    if scale != expected:
        raise ModelError(f"{path}: query_pre_attn_scalar is {scale}; GGUF's gemma3 implies {expected}")


def _sizes(checkpoint: Checkpoint) -> tuple[int, int, int]:
    """Width of the model, number of heads, width of a head."""
    n_head = checkpoint.integer("num_attention_heads", default=_N_HEAD)
    return checkpoint.integer("hidden_size"), n_head, checkpoint.integer("head_dim", default=_HEAD)


def _pattern(checkpoint: Checkpoint) -> int:
    """Of how many layers the last one sees everything.

    Raises:
        ModelError: the layers follow no such pattern.
    """
    config, n_layers = checkpoint.config, checkpoint.layers()
    key = "sliding_window_pattern" if config.get("sliding_window_pattern") else "_sliding_window_pattern"
    pattern = checkpoint.integer(key, default=_PATTERN)
    kinds = config.get("layer_types")
    if kinds is None:
        return pattern
    if not isinstance(kinds, list) or len(kinds) != n_layers:
        raise ModelError(f"{checkpoint.folder / 'config.json'}: layer_types does not name {n_layers} layers")
    full = [i + 1 for i, kind in enumerate(kinds) if kind == "full_attention"]
    if full:
        pattern = full[0]
    elif pattern <= n_layers:
        pattern = n_layers + 1
    if full != list(range(pattern, n_layers + 1, pattern)):
        raise ModelError(f"{checkpoint.folder / 'config.json'}: layer_types follows no pattern that repeats")
    return pattern


def _find(checkpoint: Checkpoint) -> dict[str, str]:
    names: dict[str, str] = {}
    n_vision = 0
    for source in checkpoint.tensors:
        if _VISION.match(source):
            n_vision += 1
            continue
        name = next((new + source[len(old) :] for old, new in _WRAPPERS if source.startswith(old)), source)
        if name in names:
            raise ModelError(f"{checkpoint.folder}: {source!r} and {names[name]!r} are the same tensor")
        names[name] = source
    if n_vision:
        log.warning("%s: %d tensors of the vision part are left out", checkpoint.folder, n_vision)
    try:
        found = rename(names, GEMMA3_NAMES, _UNUSED)
    except ModelError as error:
        raise ModelError(f"{checkpoint.folder}: {error}") from None
    if checkpoint.config.get("tie_word_embeddings", True) is True:
        found.pop("output.weight", None)
    return {target: names[name] for target, name in found.items()}


def _add_metadata(checkpoint: Checkpoint, writer: GGUFWriter) -> None:
    n_embd, n_head, head = _sizes(checkpoint)
    rope, pattern = read_rope(checkpoint), _pattern(checkpoint)
    if rope.kind not in ("default", "linear"):
        raise ModelError(f"{checkpoint.folder / 'config.json'}: rope_type {rope.kind!r} is not supported for gemma3")
    writer.add("general.type", "model")
    writer.add("general.quantization_version", 2)
    writer.add("gemma3.block_count", checkpoint.layers())
    writer.add("gemma3.context_length", checkpoint.integer("max_position_embeddings", default=_N_CTX))
    writer.add("gemma3.embedding_length", n_embd)
    writer.add("gemma3.feed_forward_length", checkpoint.integer("intermediate_size"))
    writer.add("gemma3.attention.head_count", n_head)
    writer.add("gemma3.attention.head_count_kv", checkpoint.integer("num_key_value_heads", default=_N_HEAD_KV))
    writer.add("gemma3.attention.layer_norm_rms_epsilon", checkpoint.number("rms_norm_eps", default=_EPS))
    writer.add("gemma3.attention.key_length", head)
    writer.add("gemma3.attention.value_length", head)
    rope.write(writer, "gemma3")
    if rope.base is None:
        writer.add("gemma3.rope.freq_base", _BASE)
    if (cap := checkpoint.config.get("final_logit_softcapping")) is not None:
        writer.add("gemma3.final_logit_softcapping", checkpoint.checked_number(cap, "final_logit_softcapping"))
    writer.add("gemma3.attention.sliding_window", checkpoint.integer("sliding_window"))
    if pattern != _PATTERN:
        writer.add("gemma3.attention.sliding_window_pattern", pattern)


def _add_vocabulary(checkpoint: Checkpoint, writer: GGUFWriter, *, n_rows: int) -> None:
    files = TokenizerFiles(checkpoint)
    if checkpoint.has("tokenizer.model"):
        vocabulary = read_sentencepiece(checkpoint.folder / "tokenizer.model")
        vocabulary.add_space_prefix = False
    elif files.document:
        vocabulary = read_fast_tokenizer(files.document, n_rows=n_rows)
    else:
        raise TokenizerError(f"{checkpoint.folder}: has neither tokenizer.json nor tokenizer.model")
    add_tokens(vocabulary, files.added_tokens(), n_rows=n_rows)
    fit_rows(vocabulary, n_rows=n_rows)
    write_vocabulary(vocabulary, writer)
    files.write(writer, vocabulary.tokens)


def _targets(checkpoint: Checkpoint, n_rows: int) -> dict[str, Target]:
    d, n_head, head = _sizes(checkpoint)
    f, n_head_kv = (
        checkpoint.integer("intermediate_size"),
        checkpoint.integer("num_key_value_heads", default=_N_HEAD_KV),
    )
    targets = {
        "token_embd.weight": Target((n_rows, d)),
        "output_norm.weight": Target((d,), _shift),
        "output.weight": Target((n_rows, d), required=False),
    }
    shapes = {
        "attn_q": (n_head * head, d),
        "attn_k": (n_head_kv * head, d),
        "attn_v": (n_head_kv * head, d),
        "attn_output": (d, n_head * head),
        "ffn_gate": (f, d),
        "ffn_up": (f, d),
        "ffn_down": (d, f),
    }
    norms = {"attn_norm": d, "post_attention_norm": d, "ffn_norm": d, "post_ffw_norm": d}
    norms |= {"attn_q_norm": head, "attn_k_norm": head}
    for layer in range(checkpoint.layers()):
        targets |= {f"blk.{layer}.{name}.weight": Target(shape) for name, shape in shapes.items()}
        targets |= {f"blk.{layer}.{name}.weight": Target((n,), _shift) for name, n in norms.items()}
    return targets


def _shift(array: np.ndarray) -> np.ndarray:
    """Gemma's checkpoints hold the weights of norms less one."""
    return array + np.float32(1.0)
