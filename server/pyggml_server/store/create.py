"""Makes a model: of files or of another model, with texts and options of its own."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from pyggml.gguf import GGUFFile
from pyggml_server.errors import StoreError
from pyggml_server.store.details import RECORDED, describe_gguf
from pyggml_server.store.drafts import import_draft
from pyggml_server.store.manifests import CONFIG_MEDIA_TYPE, LAYER_PREFIX, Layer, Manifest
from pyggml_server.store.models import Store, StoredModel
from pyggml_server.store.progress import Progress, Report
from pyggml_server.store.recipe import Recipe
from pyggml_server.store.template_names import template_name
from pyggml_server.store.weights import import_adapters, import_files, quantize_layer

__all__ = ["create_model"]

_OTHER: Final = frozenset({"template", "prompt", "system", "params", "messages", "license"})


def create_model(store: Store, recipe: Recipe, report: Report) -> StoredModel:
    """Make a model.

    What a recipe leaves out is inherited; parameters are merged name by name, licences are appended.

    Args:
        store: Where the model goes, and where its parts are.
        recipe: What it is made of.
        report: Receives the progress.

    Raises:
        ModelNotFoundError: the model to start from is not in the store.
        BadRequestError: the parts cannot be used.
        GGUFError: a file is damaged.
    """
    base = store.get(recipe.base) if recipe.base is not None else None
    layers = (
        [replace(layer, source=layer.source or base.name.display) for layer in base.layers]
        if base is not None
        else import_files(store, recipe.files, report, name=recipe.name.model)
    )
    if base is None and recipe.template is None:
        _tell_template(store, layers, report)
    binary = [layer for layer in layers if layer.kind not in _OTHER]
    if recipe.quantize:
        binary = [
            quantize_layer(store, layer, recipe.quantize, report) if layer.kind == "model" else layer
            for layer in binary
        ]
    draft = import_draft(
        store, recipe.draft_files, binary, report, name=recipe.name.model, quantize=recipe.draft_quantize
    )
    if draft is not None:
        binary = [layer for layer in binary if layer.kind != "draft"] + [draft]
    if adapters := import_adapters(store, recipe.adapters, binary, report):
        binary = [layer for layer in binary if layer.kind != "adapter"] + adapters
    texts = [_add(store, f"{LAYER_PREFIX}{kind}", data, report) for kind, data in _texts(recipe, base)]
    for layer in binary:
        report(Progress(f"using existing layer {layer.digest}"))
    config = _add(store, CONFIG_MEDIA_TYPE, _config(store, recipe, base, [*binary, *texts]), report)
    report(Progress("writing manifest"))
    store.write_manifest(recipe.name, Manifest(config, (*binary, *texts)).to_bytes())
    report(Progress("success"))
    return store.get(recipe.name)


def _tell_template(store: Store, layers: Sequence[Layer], report: Report) -> None:
    """Say which well-known template the weights bring along; it is used as it stands in them."""
    for layer in layers:
        if layer.kind == "model":
            with GGUFFile(store.blobs.path(layer.digest)) as file:
                source = file.metadata.get("tokenizer.chat_template")
            if isinstance(source, str) and (name := template_name(source)) is not None:
                report(Progress(f"using autodetected template {name}"))


def _texts(recipe: Recipe, base: StoredModel | None) -> list[tuple[str, bytes]]:
    """The layers that are texts: kind and content."""
    template = recipe.template if recipe.template is not None else base and base.template
    system = recipe.system if recipe.system is not None else base and base.system
    messages = recipe.messages if recipe.messages is not None else (base.messages if base else ())
    params = {**(base.params if base else {}), **recipe.parameters}
    licenses = [*(base.licenses if base else ()), *recipe.licenses]
    found = [("template", template), ("system", system), *(("license", text) for text in dict.fromkeys(licenses))]
    documents = [(kind, text.encode()) for kind, text in found if text]
    if params:
        documents.append(("params", _json(params)))
    if messages:
        documents.append(("messages", _json([dict(message) for message in messages])))
    return documents


def _config(store: Store, recipe: Recipe, base: StoredModel | None, layers: Sequence[Layer]) -> bytes:
    """The description of the model, with what only Ollama's own versions read."""
    weights = next((layer for layer in layers if layer.kind == "model"), None)
    if weights is None:
        raise StoreError(f"{recipe.name.display}: there are no model weights")
    details = describe_gguf(store.blobs.path(weights.digest))
    document = json.loads(details.to_bytes(layers=tuple(layer.digest for layer in layers)))
    draft = next((layer for layer in layers if layer.kind == "draft"), None)
    if draft is not None:
        family = describe_gguf(store.blobs.path(draft.digest)).family
        document["draft"] = {"model_format": "gguf", "architecture": family}
    for key in RECORDED:
        if value := getattr(recipe, key) or (getattr(base.details, key) if base is not None else ""):
            document[key] = value
    return _json(document)


def _add(store: Store, media_type: str, data: bytes, report: Report) -> Layer:
    old = store.blobs.find(f"sha256:{hashlib.sha256(data).hexdigest()}") is not None
    blob = store.blobs.add_bytes(data)
    report(Progress(f"{'using existing' if old else 'creating new'} layer {blob.digest}"))
    return Layer(media_type, blob.digest, blob.size)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
