"""Adapters inside a graph: what they add to each product, with a scale per token as input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pyggml.inputs import HostInput
from pyggml.tensor import Arena, DType, Graph, Tensor, ops

from .adapter import EMBEDDING

__all__ = ["AdaptedArena", "LoadedPair", "Overlay", "overlay_of"]


@dataclass(frozen=True)
class LoadedPair:
    """An :class:`~pyggml.lora.AdapterPair` on its device."""

    a: Tensor
    b: Tensor
    factor: float


class AdaptedArena(Arena):
    """The arena of a graph in which adapters are active: layers find them where their operands live."""

    def __init__(self) -> None:
        super().__init__()
        self.overlay: Overlay | None = None


def overlay_of(x: Tensor) -> Overlay | None:
    """The adapters of the graph that ``x`` belongs to; None: it has none."""
    return x.arena.overlay if isinstance(x.arena, AdaptedArena) else None


class Overlay:
    """The adapters that are active in one graph.

    The graph depends on which adapters they are, not on their scales: those are an input, one number per token, so that
    sequences of one batch can use different adapters.
    """

    def __init__(
        self,
        graph: Graph,
        active: Mapping[int, Mapping[str, LoadedPair]],
        *,
        n_tokens: int,
        output_rows: Tensor | None,
    ) -> None:
        """
        Args:
            graph: gets the inputs.
            active: the adapters by index, and their pairs by the name of the model's tensor.
            n_tokens: tokens of the graph.
            output_rows: which of them are left where the last layer has dropped the others; None: all.
        """
        self.n_tokens = n_tokens
        self.applied: set[tuple[int, str]] = set()
        """Adapter and tensor of each pair that a layer asked for."""
        self._active = active
        self._output_rows = output_rows
        self._inputs = {i: graph.input(DType.F32, 1, n_tokens, name=f"adapter_scale_{i}") for i in active}
        self._scales: dict[tuple[int, float, bool], Tensor] = {}
        self._hosts: dict[int, HostInput] = {}

    def linear(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """``y`` plus what the adapters add to it.

        Args:
            name: of the weight.
            x: what was multiplied with it: ``(n_in, n)``, or ``(n_in, m, n)``, with one column or matrix per token (or
                per output).
            y: the product, ``(n_out, ...)``.
        """
        if name == EMBEDDING:
            return y  # tied to the output: an adapter of the embedding changes what is looked up (as PEFT has it)
        for i, pairs in self._active.items():
            if (pair := pairs.get(name)) is not None:
                down = ops.mul(ops.mul_mat(pair.a, x), self._scale(i, pair.factor, x))
                y = ops.add(y, ops.mul_mat(pair.b, down))
                self.applied.add((i, name))
        return y

    def embedding(self, name: str, ids: Tensor, y: Tensor) -> Tensor:
        """``y`` ``(n_embd, n_tokens)``, looked up at ``ids``, plus what the adapters add to it."""
        for i, pairs in self._active.items():
            if (pair := pairs.get(name)) is not None:
                down = ops.get_rows(pair.a, ids)
                y = ops.add(y, ops.mul_mat(pair.b, ops.mul(down, self._scale(i, pair.factor, down))))
                self.applied.add((i, name))
        return y

    def _scale(self, adapter: int, factor: float, x: Tensor) -> Tensor:
        """The scales ``(1, n)`` of the tokens that ``x`` has, times ``factor``; ``(1, 1, n)`` for three dimensions."""
        deep = x.ne[2] > 1 or (self.n_tokens == 1 and x.ne[1] > 1)
        n = x.ne[2] if deep else x.ne[1]
        selected = self._output_rows is not None and n != self.n_tokens
        key = (adapter, factor, selected)
        if key not in self._scales:
            scale = self._inputs[adapter]
            if selected and self._output_rows is not None:
                scale = ops.get_rows(scale, self._output_rows)
            self._scales[key] = scale if factor == 1.0 else ops.scale(scale, factor=factor)
        scale = self._scales[key]
        return ops.reshape(scale, 1, 1, n) if deep else scale

    def set_inputs(self, scales: Mapping[int, npt.NDArray[np.float32]]) -> None:
        """Write the scales ``(n_tokens)`` of each active adapter."""
        if not self._hosts:
            self._hosts = {i: HostInput(tensor, np.float32) for i, tensor in self._inputs.items()}
        for i, host in self._hosts.items():
            host.write(scales[i])
