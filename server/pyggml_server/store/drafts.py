"""Draft models: smaller ones that propose tokens for the model that they come with."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from pyggml.errors import TokenizerError
from pyggml.gguf import GGUFFile
from pyggml.tokenizer import Tokenizer
from pyggml_server.errors import BadRequestError
from pyggml_server.store.manifests import LAYER_PREFIX, Layer
from pyggml_server.store.models import Store
from pyggml_server.store.progress import Report
from pyggml_server.store.recipe import SourceFile
from pyggml_server.store.weights import import_files, quantize_layer

__all__ = ["import_draft"]

_MEDIA_TYPE: Final = f"{LAYER_PREFIX}draft"
_MOST_DIFFERENT: Final = 128  # vocabularies of a family are padded differently


def import_draft(
    store: Store,
    files: Sequence[SourceFile],
    layers: Sequence[Layer],
    report: Report,
    *,
    name: str,
    quantize: str | None = None,
) -> Layer | None:
    """The layer of the draft model; None: there is none.

    Args:
        store: Where the files are, and the layer goes.
        files: The draft model's files; none: the one among ``layers`` stays.
        layers: The other layers.
        report: Receives the progress.
        name: What the model calls itself, for messages and for a draft model that is converted.
        quantize: The mix of types to bring the draft model's weights to.

    Raises:
        BadRequestError: the files are no model, or one with another vocabulary than the model's.
        GGUFError: a file is damaged.
    """
    known = next((layer for layer in layers if layer.kind == "draft"), None)
    if files:
        found = import_files(store, files, report, name=f"{name}-draft")
        if len(found) != 1:
            raise BadRequestError(f"a draft model is one model without projectors and adapters, not {len(found)} files")
        known = found[0]
    if known is None:
        if quantize:
            raise BadRequestError("--draft-quantize requires a DRAFT model")
        return None
    if files:
        label = ", ".join(str(file.path) for file in files if file.path.suffix in (".gguf", ".safetensors"))
        model = next(layer for layer in layers if layer.kind == "model")
        _check_vocabulary(store, known, model, draft_name=label or str(files[0].path), name=name)
    if quantize:
        known = quantize_layer(store, known, quantize, report)
    return replace(known, media_type=_MEDIA_TYPE)


def _check_vocabulary(store: Store, draft: Layer, model: Layer, *, draft_name: str, name: str) -> None:
    """The tokens that one proposes must mean the same to the other."""
    small = _vocabulary(store.blobs.path(draft.digest), f"the draft model {draft_name}", store)
    large = _vocabulary(store.blobs.path(model.digest), f"the model {name}", store)
    problem = ""
    if abs(small.n_vocab - large.n_vocab) > _MOST_DIFFERENT:
        problem = f"it has {small.n_vocab} tokens, the model {large.n_vocab}"
    else:
        for token in range(min(small.n_vocab, large.n_vocab)):
            pair = small.token_bytes(token), large.token_bytes(token)
            if pair[0] != pair[1]:
                problem = f"token {token} is {pair[0]!r} for it and {pair[1]!r} for the model"
                break
    if problem:
        raise BadRequestError(
            f"the draft model {draft_name} cannot draft for {name}: {problem}; take one of its family"
        )


def _vocabulary(path: Path, label: str, store: Store) -> Tokenizer:
    try:
        with GGUFFile(path) as file:
            return Tokenizer.from_metadata(file.metadata, cache_dir=store.work_folder() / "tokenizers")
    except TokenizerError as error:
        raise BadRequestError(f"{label} has no vocabulary that can be read: {error}") from None
