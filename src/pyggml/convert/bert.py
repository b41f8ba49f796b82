"""BERT encoders to GGUF's architecture ``bert``: sentence embedders (all-MiniLM) and cross-encoders (ms-marco)."""

import re
from typing import Final

import numpy as np

from pyggml.convert.checkpoint import Checkpoint
from pyggml.convert.wordpiece import WordPiece, read_wordpiece
from pyggml.errors import ModelError
from pyggml.gguf import GGUFWriter, ValueType

__all__ = ["write_bert"]

# name in the checkpoint (regular expression) → name in GGUF
_NAMES: Final = (
    (r"embeddings\.word_embeddings\.weight", "token_embd.weight"),
    (r"embeddings\.position_embeddings\.weight", "position_embd.weight"),
    (r"embeddings\.token_type_embeddings\.weight", "token_types.weight"),
    (r"embeddings\.LayerNorm\.(weight|bias)", r"token_embd_norm.\1"),
    (r"encoder\.layer\.(\d+)\.attention\.self\.query\.(weight|bias)", r"blk.\1.attn_q.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.self\.key\.(weight|bias)", r"blk.\1.attn_k.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.self\.value\.(weight|bias)", r"blk.\1.attn_v.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(weight|bias)", r"blk.\1.attn_output.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.(weight|bias)", r"blk.\1.attn_output_norm.\2"),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.(weight|bias)", r"blk.\1.ffn_up.\2"),
    (r"encoder\.layer\.(\d+)\.output\.dense\.(weight|bias)", r"blk.\1.ffn_down.\2"),
    (r"encoder\.layer\.(\d+)\.output\.LayerNorm\.(weight|bias)", r"blk.\1.layer_output_norm.\2"),
)
# the head of a cross-encoder: GGUF's names for BERT's pooler and what comes after it
_HEAD: Final = (
    (r"pooler\.dense\.(weight|bias)", r"cls.\1"),
    (r"classifier\.(weight|bias)", r"cls.output.\1"),
)
# buffers and heads that embeddings do not use
_UNUSED: Final = re.compile(r"embeddings\.(position_ids|token_type_ids)|pooler\..*|cls\..*")
# kept in float32 although they are matrices: they are added, not multiplied
_FLOAT32: Final = ("position_embd.weight", "token_types.weight")
_POOLING: Final = {"pooling_mode_mean_tokens": 1, "pooling_mode_cls_token": 2, "pooling_mode_lasttoken": 3}
_RANK: Final = 4
_FILE_TYPE_F16: Final = 1


def write_bert(checkpoint: Checkpoint, writer: GGUFWriter) -> None:
    """Put a BERT model into a GGUF writer: matrices as float16, vectors and added tables as float32.

    A ``BertForSequenceClassification`` with one label becomes a reranker (``pooling_type`` 4).

    Args:
        checkpoint: The model folder.
        writer: Made with ``architecture="bert"``.

    Raises:
        ModelError: a variant that GGUF's ``bert`` does not describe.
        MissingTensorError: weights are missing.
        TokenizerError: the vocabulary is missing or does not fit.
    """
    _check_variant(checkpoint)
    n_layers = checkpoint.layers()
    _add_metadata(checkpoint, writer, n_layers=n_layers)
    n_vocab = checkpoint.integer("vocab_size")
    if not any(tensor.shape[:1] == (n_vocab,) for tensor in checkpoint.tensors.values()):
        raise ModelError(f"{checkpoint.folder}: vocab_size is {n_vocab}; no tensor has so many rows")
    vocabulary = read_wordpiece(checkpoint, n_vocab=n_vocab)
    _add_vocabulary(writer, vocabulary)
    if _ranks(checkpoint):
        _add_pair_rules(writer, vocabulary)
    writer.add("tokenizer.ggml.token_type_count", checkpoint.integer("type_vocab_size", default=1))
    _add_tensors(checkpoint, writer, n_layers=n_layers)


def _check_variant(checkpoint: Checkpoint) -> None:
    path = checkpoint.folder / "config.json"
    config = checkpoint.config
    if config.get("hidden_act", "gelu") != "gelu":
        raise ModelError(f"{path}: the activation {config['hidden_act']!r} is not supported, gelu is")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ModelError(f"{path}: position embeddings {config['position_embedding_type']!r} are not supported")


def _ranks(checkpoint: Checkpoint) -> bool:
    return checkpoint.architecture == "BertForSequenceClassification"


def _add_metadata(checkpoint: Checkpoint, writer: GGUFWriter, *, n_layers: int) -> None:
    writer.add("general.file_type", _FILE_TYPE_F16)
    writer.add("bert.block_count", n_layers)
    for key, field in (
        ("context_length", "max_position_embeddings"),
        ("embedding_length", "hidden_size"),
        ("feed_forward_length", "intermediate_size"),
        ("attention.head_count", "num_attention_heads"),
    ):
        writer.add(f"bert.{key}", checkpoint.integer(field))
    writer.add("bert.attention.layer_norm_epsilon", checkpoint.number("layer_norm_eps", default=1e-12))
    writer.add("bert.attention.causal", False)
    pooling = _pooling_type(checkpoint)
    if pooling is not None:
        writer.add("bert.pooling_type", pooling)


def _pooling_type(checkpoint: Checkpoint) -> int | None:
    """GGUF's number for how token vectors become one vector (or a score); None where the model does not say."""
    if _ranks(checkpoint):
        return _RANK
    if not checkpoint.has("1_Pooling/config.json"):
        return None
    config = checkpoint.json("1_Pooling/config.json")
    modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if len(modes) != 1 or modes[0] not in _POOLING:
        raise ModelError(f"{checkpoint.folder}/1_Pooling/config.json: {modes} is not supported: mean, cls or last")
    return _POOLING[modes[0]]


def _add_vocabulary(writer: GGUFWriter, vocabulary: WordPiece) -> None:
    writer.add("tokenizer.ggml.model", "bert")
    writer.add("tokenizer.ggml.tokens", vocabulary.tokens)
    writer.add("tokenizer.ggml.token_type", vocabulary.types, item=ValueType.INT32)
    for key, index in vocabulary.special_ids.items():
        writer.add(f"tokenizer.ggml.{key}_token_id", index)
    writer.add("tokenizer.ggml.bos_token_id", vocabulary.special_ids["cls"])


def _add_pair_rules(writer: GGUFWriter, vocabulary: WordPiece) -> None:
    """How two texts are put together: ``[CLS] query [SEP] document [SEP]``, in the keys that llama.cpp reads."""
    writer.add("tokenizer.ggml.eos_token_id", vocabulary.special_ids["seperator"])
    for name, value in (("bos", True), ("eos", True), ("sep", False)):
        writer.add(f"tokenizer.ggml.add_{name}_token", value)


def _add_tensors(checkpoint: Checkpoint, writer: GGUFWriter, *, n_layers: int) -> None:
    found: dict[str, str] = {}
    ranks = _ranks(checkpoint)
    for source in checkpoint.tensors:
        target = _target_name(source.removeprefix("bert."), ranks=ranks)
        if target is None:
            continue
        if target == "" or target in found:
            raise ModelError(f"{checkpoint.folder}: it is not known what the tensor {source!r} is for")
        found[target] = source
    shapes = _expected_shapes(checkpoint, n_layers=n_layers)
    if found.keys() - shapes.keys():
        raise ModelError(f"{checkpoint.folder}: tensors of layers beyond {n_layers}: {found.keys() - shapes.keys()}")
    for target, shape in shapes.items():
        # a missing tensor is reported by the checkpoint, under a name that people can look for
        source = found.get(target, f"(for {target})")
        dtype = np.float16 if len(shape) == 2 and target not in _FLOAT32 else np.float32
        _add_tensor(checkpoint, writer, source, target, shape=shape, dtype=dtype)


def _add_tensor(
    checkpoint: Checkpoint,
    writer: GGUFWriter,
    source: str,
    target: str,
    *,
    shape: tuple[int, ...],
    dtype: type,
) -> None:
    array = checkpoint.numpy(source)
    if array.shape != shape:
        raise ModelError(f"{checkpoint.folder}: tensor {source!r} has the shape {array.shape} instead of {shape}")
    if array.dtype.kind != "f":
        raise ModelError(f"{checkpoint.folder}: tensor {source!r} holds {array.dtype}, floats are needed")
    writer.add_tensor(target, array.astype(dtype))


def _target_name(source: str, *, ranks: bool) -> str | None:
    """The name in GGUF; None for what is left out, empty for what is unknown."""
    for pattern, target in _HEAD if ranks else ():
        if match := re.fullmatch(pattern, source):
            return match.expand(target)
    if _UNUSED.fullmatch(source):
        return None
    for pattern, target in _NAMES:
        if match := re.fullmatch(pattern, source):
            return match.expand(target)
    return ""


def _expected_shapes(checkpoint: Checkpoint, *, n_layers: int) -> dict[str, tuple[int, ...]]:
    """All tensors of the model with their shapes in numpy order."""
    d, f = checkpoint.integer("hidden_size"), checkpoint.integer("intermediate_size")
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (checkpoint.integer("vocab_size"), d),
        "position_embd.weight": (checkpoint.integer("max_position_embeddings"), d),
        "token_types.weight": (checkpoint.integer("type_vocab_size", default=1), d),
        "token_embd_norm.weight": (d,),
        "token_embd_norm.bias": (d,),
    }
    matrices: dict[str, tuple[int, int]] = {
        "attn_q": (d, d),
        "attn_k": (d, d),
        "attn_v": (d, d),
        "attn_output": (d, d),
        "ffn_up": (f, d),
        "ffn_down": (d, f),
    }
    if _ranks(checkpoint):
        shapes |= _head_shapes(checkpoint, d)
    for layer in range(n_layers):
        for name, shape in matrices.items():
            shapes[f"blk.{layer}.{name}.weight"] = shape
            shapes[f"blk.{layer}.{name}.bias"] = shape[:1]
        for name in ("attn_output_norm", "layer_output_norm"):
            shapes[f"blk.{layer}.{name}.weight"] = (d,)
            shapes[f"blk.{layer}.{name}.bias"] = (d,)
    return shapes


def _head_shapes(checkpoint: Checkpoint, d: int) -> dict[str, tuple[int, ...]]:
    rows = checkpoint.tensors["classifier.weight"].shape[:1] if "classifier.weight" in checkpoint.tensors else (1,)
    if rows != (1,):
        raise ModelError(
            f"{checkpoint.folder}: the model has {rows[0]} classes; only rerankers, with one score, are converted"
        )
    return {"cls.weight": (d, d), "cls.bias": (d,), "cls.output.weight": (1, d), "cls.output.bias": (1,)}
