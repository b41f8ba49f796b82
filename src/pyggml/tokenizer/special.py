"""Which tokens mean something beyond their text: begin, end of turn, fill-in-the-middle, end of generation.

GGUF files name some of them by id (``tokenizer.ggml.*_token_id``); the others are found by their text, as
llama.cpp does (``llama_vocab::impl::load``), because converters never wrote them down.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pyggml.tokenizer.metadata import Metadata

__all__ = ["SpecialTokens", "find_special_tokens"]

_KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "bos": ("bos_token_id",),
        "eos": ("eos_token_id",),
        "eot": ("eot_token_id",),
        "eom": ("eom_token_id",),
        "unk": ("unknown_token_id",),
        "sep": ("seperator_token_id", "separator_token_id"),  # the first spelling is the format's
        "pad": ("padding_token_id",),
        "cls": ("cls_token_id",),
        "mask": ("mask_token_id",),
        "fim_prefix": ("prefix_token_id", "fim_pre_token_id"),  # the last one wins: the first is deprecated
        "fim_suffix": ("suffix_token_id", "fim_suf_token_id"),
        "fim_middle": ("middle_token_id", "fim_mid_token_id"),
        "fim_pad": ("fim_pad_token_id",),
        "fim_rep": ("fim_rep_token_id",),
        "fim_sep": ("fim_sep_token_id",),
    }
)

# Texts by which a role is recognised when the file does not name it; the first one in the vocabulary is
# taken.
_TEXTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "eot": (
            "<|eot_id|>",
            "<|im_end|>",
            "<|end|>",
            "<end_of_turn>",
            "<|endoftext|>",
            "<|end_of_text|>",
            "<EOT>",
            "_<EOT>",
            "[EOT]",
            "<｜end▁of▁sentence｜>",
            "<end_of_utterance>",
        ),
        "eom": ("<|eom_id|>",),
        "fim_prefix": (
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ),
        "fim_suffix": (
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ),
        "fim_middle": (
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ),
        "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
        "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
        "fim_sep": ("<|file_sep|>",),
    }
)

_END_TEXTS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
)

# Texts that a reader of the output needs to see although the file calls them control tokens (gpt-oss's
# channels).
_VISIBLE_TEXTS = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")


@dataclass(frozen=True)
class SpecialTokens:
    """The special ids of a vocabulary, and the corrections to token types that follow from them."""

    ids: Mapping[str, int | None]
    """Role (``bos``, ``eos``, ``fim_prefix``, ...) to id; None if there is no such token."""
    eog: frozenset[int]
    """Ids after which generation ends."""
    control: frozenset[int] = field(default_factory=frozenset)
    """Ids to treat as control tokens whatever the file says."""
    visible: frozenset[int] = field(default_factory=frozenset)
    """Ids to treat as user-defined tokens whatever the file says."""
    normal: frozenset[int] = field(default_factory=frozenset)
    """Ids to treat as normal tokens whatever the file says."""


def find_special_tokens(
    meta: Metadata, index: Mapping[str, int], *, n_vocab: int, defaults: Mapping[str, int]
) -> SpecialTokens:
    """Collect the special ids of a vocabulary.

    Args:
        meta: the file's metadata.
        index: text of each token to its id.
        n_vocab: number of tokens.
        defaults: ids that the tokenizer model gives to roles which the file leaves out.

    Returns:
        The ids by role, the end-of-generation set and the type corrections.
    """
    ids = {role: _declared(meta, keys, defaults.get(role), n_vocab) for role, keys in _KEYS.items()}
    control: set[int] = set()
    for role, texts in _TEXTS.items():
        if ids[role] is None:
            ids[role] = next((index[text] for text in texts if text in index), None)
            control.update(id for id in (ids[role],) if id is not None)
    ends = _present(index, _END_TEXTS)
    control.update(ends.values())
    eog = set(ends.values())
    eog.update(id for role in ("fim_pad", "fim_rep", "fim_sep", "eos", "eot", "eom") if (id := ids[role]) is not None)
    eog.update(id for id in meta.integers("tokenizer.ggml.eos_token_ids") if 0 <= id < n_vocab)  # Ollama's key
    visible = set(_present(index, _VISIBLE_TEXTS).values())
    normal: set[int] = set()
    _apply_exceptions(ends, index, eog, visible=visible, normal=normal)
    return SpecialTokens(
        MappingProxyType(ids),
        frozenset(eog),
        control=frozenset(control - visible - normal),
        visible=frozenset(visible),
        normal=frozenset(normal),
    )


def _apply_exceptions(
    ends: Mapping[str, int], index: Mapping[str, int], eog: set[int], *, visible: set[int], normal: set[int]
) -> None:
    """Vocabularies in which a well-known end token is something else."""
    harmony = "<|return|>" in ends and ("<|call|>" in ends or "<|calls|>" in ends)
    solar = "<|flush|>" in ends and ("<|call|>" in ends or "<|calls|>" in ends)
    if (harmony or solar) and "<|end|>" in ends:
        # There <|end|> closes one message of several in a turn.
        eog.discard(ends["<|end|>"])
        visible.add(ends["<|end|>"])
    if "</s>" in ends and ("<|tool_response>" in ends or index.get("<|plamo:eos|>", -1) in eog):
        eog.discard(ends["</s>"])
        normal.add(ends["</s>"])


def _present(index: Mapping[str, int], texts: Iterable[str]) -> dict[str, int]:
    return {text: index[text] for text in texts if text in index}


def _declared(meta: Metadata, keys: tuple[str, ...], default: int | None, n_vocab: int) -> int | None:
    """The id under the last of ``keys`` that is present and in range; an id out of range counts as absent."""
    found = default if default is not None and default < n_vocab else None
    for key in keys:
        value = meta.integer(f"tokenizer.ggml.{key}")
        if value is not None and 0 <= value < n_vocab:
            found = value
    return found
