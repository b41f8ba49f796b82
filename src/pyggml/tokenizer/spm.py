"""SentencePiece BPE (``tokenizer.ggml.model`` = llama): scored pieces, spaces as U+2581, byte fallback."""

from pathlib import Path

from tokenizers import normalizers
from tokenizers.models import BPE

from pyggml.tokenizer.cache import load_or_merge
from pyggml.tokenizer.encoders import LibraryEncoder
from pyggml.tokenizer.merges import name_pairs
from pyggml.tokenizer.vocab import Vocabulary

__all__ = ["build_spm"]


def build_spm(vocab: Vocabulary, *, cache_dir: Path | None) -> LibraryEncoder:
    """An encoder with the merges that the scores of ``vocab`` imply."""
    merges = name_pairs(vocab, load_or_merge(vocab, ranks=False, cache_dir=cache_dir))
    unk = vocab.special.ids["unk"]
    model = BPE(
        vocab.index,
        merges,
        byte_fallback=True,
        fuse_unk=True,
        unk_token=None if unk is None or unk in vocab.broken else vocab.tokens[unk],
    )
    steps: list[normalizers.Normalizer] = [normalizers.Replace(" ", "▁")]
    if vocab.add_space_prefix:
        steps.insert(0, normalizers.Prepend("▁"))
    return LibraryEncoder(vocab, model, normalizer=normalizers.Sequence(steps), pre_tokenizer=None)
