"""Which class runs which ``general.architecture``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pyggml.errors import ModelError, UnsupportedArchitectureError
from pyggml.gguf import ModelMetadata
from pyggml.weights import Scope

from .base import Model

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.metadata import EntryPoint

__all__ = ["BUILT_IN", "architectures", "create_model"]

# general.architecture -> module in this package, class in it. Imported when a file asks for it.
BUILT_IN = {
    "bert": ("bert", "Bert"),
    "gemma3": ("gemma3", "Gemma3"),
    "llama": ("llama", "Llama"),
}


def _registered() -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # here: 7 MiB that our own models do without

    return entry_points(group="pyggml.models")


def architectures() -> list[str]:
    """Every architecture that can be run: ours, and those that other packages register under ``pyggml.models``."""
    return sorted({*BUILT_IN, *(point.name for point in _registered())})


def _find(architecture: str) -> Any:
    if architecture in BUILT_IN:
        module, name = BUILT_IN[architecture]
        return getattr(import_module(f"pyggml.models.{module}"), name)
    for point in _registered():
        if point.name == architecture:
            try:
                return point.load()
            except (ImportError, AttributeError) as error:
                raise ModelError(
                    f"architecture {architecture!r}: the entry point {point.value!r} cannot be loaded ({error}); "
                    "update or remove the package that registers it"
                ) from error
    return None


def create_model(meta: ModelMetadata, weights: Scope) -> Model:
    """The model that ``general.architecture`` names, its weights asked for but not loaded.

    Raises:
        UnsupportedArchitectureError: nothing is registered under that name.
        MissingTensorError, ModelError, GGUFError: the file does not hold what the architecture needs.
    """
    factory = _find(meta.architecture)
    if factory is None:
        raise UnsupportedArchitectureError(
            f"{meta.path}: architecture {meta.architecture!r} is not supported; supported: "
            f"{', '.join(architectures())} (a package can add one under the entry point pyggml.models)"
        )
    model: Model = factory(meta, weights)
    return model
