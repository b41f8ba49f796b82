"""What the engine knows of a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pyggml.errors import ModelError
from pyggml.gguf import ModelMetadata
from pyggml.kvcache import CacheView, LayerShape
from pyggml.tensor import Arena, DType, Tensor, ops
from pyggml.weights import Scope

__all__ = ["CacheKind", "Inputs", "LayerCache", "Model", "ModelShape", "Pooling", "can_shift", "count"]


class Pooling:
    """``<arch>.pooling_type``: how token embeddings become one per sequence; ``RANK``: a score instead of a vector."""

    NONE = 0
    MEAN = 1
    CLS = 2
    LAST = 3
    RANK = 4


class CacheKind:
    """Whether a layer's tokens look back, and how far."""

    CAUSAL = "causal"
    BATCH_ONLY = "batch_only"


@dataclass(frozen=True)
class LayerCache:
    """What one layer needs of a cache; ``window`` and ``chunk`` 0 mean that it sees everything.

    Attributes:
        shape: what it stores per token.
        window: positions that a token sees, its own included (gemma3, gpt-oss).
        chunk: a token sees back to the last position that is a multiple of it (llama4).
    """

    shape: LayerShape
    window: int = 0
    chunk: int = 0


@dataclass(frozen=True)
class ModelShape:
    """What the engine must know to run a model.

    Attributes:
        n_vocab: rows of the output, 0 for a model that only embeds.
        n_embd: size of a token's embedding.
        n_ctx_train: the context the model was trained with.
        layers: what each layer stores.
        cache: a :class:`CacheKind`.
        pooling: a :class:`Pooling` for models that embed or rank, else ``Pooling.NONE``.
        n_scores: numbers that a model with ``Pooling.RANK`` answers with.
        n_segments: kinds of text that it tells apart (``Inputs.segments``).
    """

    n_vocab: int
    n_embd: int
    n_ctx_train: int
    layers: Sequence[LayerCache]
    cache: str = CacheKind.CAUSAL
    pooling: int = Pooling.NONE
    n_scores: int = 0
    n_segments: int = 1


@dataclass(frozen=True)
class Inputs:
    """The inputs of one graph.

    Attributes:
        tokens: ``(n_tokens)`` int32.
        positions: ``(n_tokens)`` int32.
        output_rows: ``(n_outputs)`` int32, or None when every token is an output.
        segments: ``(n_tokens)`` int32 below ``ModelShape.n_segments``, or None when all are 0.
    """

    tokens: Tensor
    positions: Tensor
    output_rows: Tensor | None
    segments: Tensor | None = None

    def select_outputs(self, *states: Tensor) -> list[Tensor]:
        """Keep only the columns whose results are wanted; for use inside the last layer, to save its work."""
        if self.output_rows is None:
            return list(states)
        return [ops.get_rows(state, self.output_rows) for state in states]


class Model(Protocol):
    """One architecture: a constructor that asks for its weights, and a forward pass."""

    shape: ModelShape

    def forward(self, inputs: Inputs, cache: CacheView) -> Tensor:
        """What the model answers: logits ``(n_vocab, n_outputs)``, scores ``(n_scores, n_outputs)`` of a model that
        ranks, or states of one that embeds.
        """
        ...

    def states(self, inputs: Inputs, cache: CacheView) -> Tensor:
        """What the last layer leaves, normalised, before any head: ``(n_embd, n_outputs)``."""
        ...

    def shift(self, layer: int, k: Tensor, delta: Tensor) -> Tensor:
        """Rotate cached keys ``(d_k, n_head_kv, n)`` by ``delta`` positions ``(n)``, for moving them in the context.

        Raises:
            NotImplementedError: the architecture's keys cannot be moved.
        """
        ...


def can_shift(model: Model) -> bool:
    """Whether :meth:`Model.shift` works; built once, not computed."""
    if not model.shape.layers:
        return False
    shape = model.shape.layers[0].shape
    with Arena() as arena:
        k = arena.new_tensor(DType.F32, (shape.d_k, shape.n_head_kv, 1))
        try:
            model.shift(shape.layer, k, arena.new_tensor(DType.I32, (1,)))
        except NotImplementedError:
            return False
    return True


def count(meta: ModelMetadata, name: str, *, default: int | None = None) -> int:
    """A number of things in the metadata, of which there must be at least one.

    Raises:
        GGUFError: the key is absent (and there is no default) or no integer.
        ModelError: it is below 1.
    """
    n = meta.get_int(name) if default is None else meta.get_int(name, default=default)
    if n < 1:
        raise ModelError(f"{meta.path}: {meta.key(name)} is {n}; it must be 1 or more")
    return n


ModelFactory = Callable[[ModelMetadata, Scope], Model]
