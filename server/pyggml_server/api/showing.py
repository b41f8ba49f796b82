"""What ``/api/show`` tells of a model."""

import math
from typing import Any, Final

import numpy as np

from pyggml.gguf import GGUFFile, StringArray, parameter_count
from pyggml_server.api.answers import Details, ShowAnswer, TensorLine
from pyggml_server.api.catalog import OpenModel, sort_capabilities
from pyggml_server.api.schema import ShowRequest
from pyggml_server.store import StoredModel, modelfile_text, parameter_lines
from pyggml_server.templates import GoTemplate

__all__ = ["show_model"]

_SHORT: Final = 5
_HIDDEN: Final = frozenset({"general.name", "tokenizer.chat_template"})


def show_model(model: OpenModel, details: Details, request: ShowRequest) -> ShowAnswer:
    """The answer; ``system`` and ``template`` of the request stand in for the model's own.

    Args:
        model: The model.
        details: Of it, as lists show them.
        request: The request.

    Raises:
        GGUFError: the file of the weights is damaged.
        TemplateError: the template of the request is wrong.
    """
    if request.template:
        GoTemplate(request.template)
    stored = model.stored
    recorded = stored.details
    verbose = bool(request.verbose)
    system = request.system or stored.system or ""
    template = request.template or stored.template or ""
    with GGUFFile(stored.path) as file:
        info = _metadata(file, verbose=verbose)
        info["general.parameter_count"] = parameter_count(file)
        tensors = [
            TensorLine(name=tensor.name, type=tensor.type.name, shape=list(tensor.shape))
            for tensor in file.tensors.values()
            if verbose
        ]
        if not template:
            template = _clean(str(file.metadata.get("tokenizer.chat_template", "")))
    params = {**stored.params, **(request.options or {})}
    return ShowAnswer(
        license="\n".join(stored.licenses),
        modelfile=modelfile_text(stored, system=system, template=request.template or stored.template or ""),
        parameters="\n".join(parameter_lines(params)),
        template=template,
        system=system,
        details=details,
        messages=[dict(message) for message in stored.messages],
        model_info=info,
        projector_info=_projector(stored, verbose=verbose),
        tensors=tensors,
        capabilities=list(sort_capabilities(model.renderer.capabilities)),
        modified_at=stored.modified.isoformat().replace("+00:00", "Z"),
        renderer=recorded.renderer,
        parser=recorded.parser,
        requires=recorded.requires,
    )


def _projector(stored: StoredModel, *, verbose: bool) -> dict[str, Any]:
    if not stored.projectors:
        return {}
    with GGUFFile(stored.projectors[0]) as file:
        return _metadata(file, verbose=verbose)


def _metadata(file: GGUFFile, *, verbose: bool) -> dict[str, Any]:
    return {key: _plain(value, verbose=verbose) for key, value in sorted(file.metadata.items()) if key not in _HIDDEN}


def _plain(value: Any, *, verbose: bool) -> Any:
    """A metadata value as JSON holds it; long lists are left out unless ``verbose``."""
    if isinstance(value, np.ndarray | StringArray | list):
        if len(value) > _SHORT and not verbose:
            return None
        return [_plain(item, verbose=verbose) for item in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _clean(text: str) -> str:
    # bytes that are no UTF-8 come as lone surrogates, which JSON cannot carry
    return text.encode("utf-8", "replace").decode()
