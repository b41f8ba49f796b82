"""Llama and the models with its graph (Mistral, and whoever kept the name) to GGUF's architecture ``llama``."""

import logging
from functools import partial
from typing import Final

import numpy as np

from pyggml.convert.checkpoint import Checkpoint
from pyggml.convert.fast_tokenizer import read_fast_tokenizer
from pyggml.convert.rope import read_rope
from pyggml.convert.sentencepiece import read_sentencepiece
from pyggml.convert.special_tokens import TokenizerFiles
from pyggml.convert.vocabulary import add_tokens, fit_rows, write_vocabulary
from pyggml.convert.weights import Target, add_weights, rename
from pyggml.errors import ModelError, TokenizerError
from pyggml.gguf import GGUFWriter

__all__ = ["DECODER_NAMES", "LLAMA_NAMES", "check_activation", "embedding_rows", "interleave", "write_llama"]

log = logging.getLogger("pyggml.convert")

DECODER_NAMES: Final = (
    (r"model\.embed_tokens\.weight", "token_embd.weight"),
    (r"model\.norm\.weight", "output_norm.weight"),
    (r"lm_head\.weight", "output.weight"),
    (r"model\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)", r"blk.\1.attn_\2.\3"),
    (r"model\.layers\.(\d+)\.self_attn\.o_proj\.(weight|bias)", r"blk.\1.attn_output.\2"),
    (r"model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.(weight|bias)", r"blk.\1.ffn_\2.\3"),
    (r"model\.layers\.(\d+)\.input_layernorm\.weight", r"blk.\1.attn_norm.weight"),
)
"""Names that all decoders share, in the checkpoint (regular expressions) and in GGUF."""
LLAMA_NAMES: Final = (
    *DECODER_NAMES,
    (r"model\.layers\.(\d+)\.post_attention_layernorm\.weight", r"blk.\1.ffn_norm.weight"),
)
"""All names of a Llama."""
_UNUSED: Final = r".*\.(rotary_emb\.inv_freq|attention\.(masked_)?bias)"
_CODE_LLAMA: Final = {"prefix": 32007, "suffix": 32008, "middle": 32009, "eot": 32010}


def write_llama(checkpoint: Checkpoint, writer: GGUFWriter) -> None:
    """Put a Llama-like model into a GGUF writer.

    Args:
        checkpoint: The model folder.
        writer: Made with ``architecture="llama"``.

    Raises:
        ModelError: a variant that GGUF's ``llama`` does not describe, or weights that do not fit.
        MissingTensorError: weights are missing.
        TokenizerError: the vocabulary is missing or does not fit.
    """
    check_activation(checkpoint, "hidden_act", ("silu",))
    found = _find(checkpoint)
    n_rows = embedding_rows(checkpoint, found)
    _add_metadata(checkpoint, writer, n_rows=n_rows)
    _add_vocabulary(checkpoint, writer, n_rows=n_rows)
    writer.add("general.file_type", add_weights(checkpoint, writer, found=found, targets=_targets(checkpoint, n_rows)))
    if (factors := read_rope(checkpoint).factors(_head(checkpoint))) is not None:
        writer.add_tensor("rope_freqs.weight", factors)


def check_activation(checkpoint: Checkpoint, key: str, known: tuple[str, ...]) -> None:
    """Refuse another activation than the one that the architecture has.

    Raises:
        ModelError: it is another.
    """
    value = checkpoint.config.get(key) or known[0]
    if value not in known:
        raise ModelError(f"{checkpoint.folder / 'config.json'}: the {key} {value!r} is not supported, {known[0]} is")


def embedding_rows(checkpoint: Checkpoint, found: dict[str, str]) -> int:
    """The number of tokens that the model has room for.

    Raises:
        ModelError: the embedding is absent or no matrix.
    """
    source = found.get("token_embd.weight")
    shape = checkpoint.tensors[source].shape if source is not None else ()
    if len(shape) != 2 or not shape[0]:
        raise ModelError(f"{checkpoint.folder}: the embedding (embed_tokens.weight) is missing or no matrix")
    return shape[0]


def interleave(array: np.ndarray, *, n_head: int) -> np.ndarray:
    """Rows of each head from halves (first halves of all pairs, then second ones) to pairs side by side.

    Checkpoints in the layout of Hugging Face rotate dimension ``i`` with ``i + d/2``, GGUF's ``llama`` ``2i`` with
    ``2i + 1``.
    """
    return array.reshape(n_head, 2, array.shape[0] // n_head // 2, -1).swapaxes(1, 2).reshape(array.shape)


def _find(checkpoint: Checkpoint) -> dict[str, str]:
    try:
        found = rename(checkpoint.tensors, LLAMA_NAMES, _UNUSED)
    except ModelError as error:
        raise ModelError(f"{checkpoint.folder}: {error}") from None
    if checkpoint.config.get("tie_word_embeddings") is True:
        found.pop("output.weight", None)
    return found


def _head(checkpoint: Checkpoint) -> int:
    """Width of a head."""
    n_embd, n_head = checkpoint.integer("hidden_size"), checkpoint.integer("num_attention_heads")
    width = checkpoint.integer("head_dim", default=max(n_embd // n_head, 1))
    if width % 2:
        raise ModelError(f"{checkpoint.folder}: heads are {width} wide, which cannot be rotated in pairs")
    return width


def _heads(checkpoint: Checkpoint) -> tuple[int, int]:
    n_head = checkpoint.integer("num_attention_heads")
    return n_head, checkpoint.integer("num_key_value_heads", default=n_head)


def _add_metadata(checkpoint: Checkpoint, writer: GGUFWriter, *, n_rows: int) -> None:
    n_head, n_head_kv = _heads(checkpoint)
    writer.add("general.type", "model")
    writer.add("general.quantization_version", 2)
    writer.add("llama.block_count", checkpoint.layers())
    writer.add("llama.context_length", checkpoint.integer("max_position_embeddings"))
    writer.add("llama.embedding_length", checkpoint.integer("hidden_size"))
    writer.add("llama.feed_forward_length", checkpoint.integer("intermediate_size"))
    writer.add("llama.attention.head_count", n_head)
    writer.add("llama.attention.head_count_kv", n_head_kv)
    read_rope(checkpoint).write(writer, "llama")
    writer.add("llama.attention.layer_norm_rms_epsilon", checkpoint.number("rms_norm_eps", default=1e-6))
    if checkpoint.config.get("head_dim") is not None:
        writer.add("llama.attention.key_length", _head(checkpoint))
        writer.add("llama.attention.value_length", _head(checkpoint))
    writer.add("llama.vocab_size", n_rows)
    writer.add("llama.rope.dimension_count", _head(checkpoint))
    if checkpoint.config.get("sliding_window"):
        log.warning("%s: the sliding window is left out, as llama.cpp does; every layer sees all", checkpoint.folder)


def _add_vocabulary(checkpoint: Checkpoint, writer: GGUFWriter, *, n_rows: int) -> None:
    files = TokenizerFiles(checkpoint)
    if checkpoint.has("tokenizer.model"):
        vocabulary = read_sentencepiece(checkpoint.folder / "tokenizer.model")
    elif files.document:
        vocabulary = read_fast_tokenizer(files.document, n_rows=n_rows)
    else:
        raise TokenizerError(f"{checkpoint.folder}: has neither tokenizer.json nor tokenizer.model")
    add_tokens(vocabulary, files.added_tokens(), n_rows=n_rows)
    fit_rows(vocabulary, n_rows=n_rows)
    if isinstance(said := files.config.get("add_prefix_space"), bool) and vocabulary.model == "llama":
        vocabulary.add_space_prefix = said
    write_vocabulary(vocabulary, writer)
    files.write(writer, vocabulary.tokens)
    if n_rows == 32016:  # Code Llama, the only one of that size, names these nowhere
        for role, id in _CODE_LLAMA.items():
            writer.add(f"tokenizer.ggml.{role}_token_id", id)


def _targets(checkpoint: Checkpoint, n_rows: int) -> dict[str, Target]:
    d, f, head = checkpoint.integer("hidden_size"), checkpoint.integer("intermediate_size"), _head(checkpoint)
    n_head, n_head_kv = _heads(checkpoint)
    targets = {
        "token_embd.weight": Target((n_rows, d)),
        "output_norm.weight": Target((d,)),
        "output.weight": Target((n_rows, d), required=False),
    }
    matrices = {
        "attn_q": Target((n_head * head, d), partial(interleave, n_head=n_head)),
        "attn_k": Target((n_head_kv * head, d), partial(interleave, n_head=n_head_kv)),
        "attn_v": Target((n_head_kv * head, d)),
        "attn_output": Target((d, n_head * head)),
        "ffn_gate": Target((f, d)),
        "ffn_up": Target((f, d)),
        "ffn_down": Target((d, f)),
    }
    for layer in range(checkpoint.layers()):
        for name, target in matrices.items():
            targets[f"blk.{layer}.{name}.weight"] = target
            targets[f"blk.{layer}.{name}.bias"] = Target(target.shape[:1], target.change, required=False)
        for name in ("attn_norm", "ffn_norm"):
            targets[f"blk.{layer}.{name}.weight"] = Target((d,))
    return targets
