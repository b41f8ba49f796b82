"""What templates must know of a model's file: its special tokens, its own template, its kind."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from pyggml.gguf import GGUFFile
from pyggml_server.store import StoredModel

__all__ = ["ModelFacts", "read_facts"]

_CONTROL: Final = 3
"""Type of control tokens in ``tokenizer.ggml.token_type``."""

_MAX_CONTROL: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Facts of a model that decide about prompts.

    Attributes:
        architecture: ``general.architecture``.
        chat_template: The Jinja template of the file; None: it has none.
        bos: Text of the BOS token; empty: none.
        eos: Text of the EOS token; empty: none.
        fim: Texts of the tokens for prefix, suffix and middle; None: not all are there.
        controls: Ids of control tokens by their text.
        embeds: The model gives vectors, not text.
        sees: The model reads images.
    """

    architecture: str = ""
    chat_template: str | None = None
    bos: str = ""
    eos: str = ""
    fim: tuple[str, str, str] | None = None
    controls: Mapping[str, int] = field(default_factory=dict)
    embeds: bool = False
    sees: bool = False


def read_facts(model: StoredModel) -> ModelFacts:
    """Read the facts from a model's files.

    Raises:
        GGUFError: the file is damaged.
    """
    with GGUFFile(model.path) as file:
        metadata = file.metadata
        architecture = str(metadata.get("general.architecture", ""))
        template = metadata.get("tokenizer.chat_template")
        return ModelFacts(
            architecture=architecture,
            chat_template=template if isinstance(template, str) and template.strip() else None,
            bos=_text(metadata, "bos_token_id"),
            eos=_text(metadata, "eos_token_id"),
            fim=_fim(metadata),
            controls=_controls(metadata),
            embeds=f"{architecture}.pooling_type" in metadata,
            sees=f"{architecture}.vision.block_count" in metadata or bool(model.projectors),
        )


def _text(metadata: Mapping[str, object], key: str) -> str:
    """The text of the token whose id stands under a key; empty where there is none."""
    id, tokens = metadata.get(f"tokenizer.ggml.{key}"), metadata.get("tokenizer.ggml.tokens")
    if not isinstance(id, int) or not hasattr(tokens, "__getitem__") or not hasattr(tokens, "__len__"):
        return ""
    return str(tokens[id]) if 0 <= id < len(tokens) else ""


def _fim(metadata: Mapping[str, object]) -> tuple[str, str, str] | None:
    # older files spell the keys out
    names = (("fim_pre", "prefix"), ("fim_suf", "suffix"), ("fim_mid", "middle"))
    texts = [_text(metadata, f"{new}_token_id") or _text(metadata, f"{old}_token_id") for new, old in names]
    return (texts[0], texts[1], texts[2]) if all(texts) else None


def _controls(metadata: Mapping[str, object]) -> dict[str, int]:
    types, tokens = metadata.get("tokenizer.ggml.token_type"), metadata.get("tokenizer.ggml.tokens")
    if types is None or not hasattr(tokens, "__getitem__") or not hasattr(tokens, "__len__"):
        return {}
    ids = np.flatnonzero(np.asarray(types) == _CONTROL)[:_MAX_CONTROL]
    return {str(tokens[int(id)]): int(id) for id in ids if id < len(tokens)}
