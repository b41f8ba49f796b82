"""Graphs: built once per shape, kept, and run again with new inputs."""

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pyggml._ffi import ffi, lib
from pyggml.batch import Batch
from pyggml.errors import ParameterError
from pyggml.inputs import HostInput
from pyggml.kvcache import Cache, CacheView
from pyggml.lora import Adapters, Overlay
from pyggml.models import Inputs, Model
from pyggml.tensor import DType, Executor, Graph, Tensor

__all__ = ["Decoder", "DecoderStats"]

MAX_GRAPHS = 16
NO_OUTPUT = np.zeros(1, np.int32)  # a graph needs an end: with no output wanted, the first token's is computed

Key = tuple[int, ...]


class _Variant(NamedTuple):
    """What, beside shapes, tells one graph from another."""

    states: bool = False
    segments: bool = False
    adapters: tuple[int, ...] = ()


PLAIN = _Variant()


@dataclass
class DecoderStats:
    """Counters since the engine was opened."""

    steps: int = 0
    graphs_built: int = 0
    compute_seconds: float = 0.0
    python_seconds: float = 0.0

    @property
    def reuse_rate(self) -> float:
        """Share of steps that ran a graph built before."""
        return 1.0 - self.graphs_built / self.steps if self.steps else 0.0

    @property
    def python_share(self) -> float:
        """Share of the time of all steps that was not spent computing graphs."""
        total = self.compute_seconds + self.python_seconds
        return self.python_seconds / total if total else 0.0


@dataclass
class _Plan:
    """One allocated graph and where its data goes in and comes out."""

    graph: Graph
    view: CacheView
    tokens: HostInput
    positions: HostInput
    output_rows: HostInput | None
    segments: HostInput | None
    overlay: Overlay | None
    result: Tensor
    out: npt.NDArray[np.float32] = field(init=False)
    in_place: bool = field(init=False)

    def __post_init__(self) -> None:
        self.find_output()

    def find_output(self) -> None:
        """Look where the result lies: it can be read there where the memory is the host's."""
        self.in_place = bool(lib.ggml_backend_buffer_is_host(self.result.ptr.buffer))
        shape = (self.result.ne[1], self.result.ne[0])
        if self.in_place:
            memory = ffi.buffer(self.result.ptr.data, self.result.n_bytes)
            self.out = np.frombuffer(memory, np.float32).reshape(shape)
        else:
            self.out = np.empty(shape, np.float32)


class Decoder:
    """Runs batches through a model; everything that depends only on shapes is done once."""

    def __init__(self, model: Model, cache: Cache, executor: Executor, *, adapters: Adapters | None = None) -> None:
        """
        Args:
            model: the architecture with its weights.
            cache: keys and values.
            executor: what computes.
            adapters: what ``Batch.adapters`` counts; the caller closes it after the decoder.
        """
        self.model = model
        self.cache = cache
        self.executor = executor
        self.adapters = adapters
        self.stats = DecoderStats()
        self._plans: OrderedDict[tuple[int, int, _Variant, Key], _Plan] = OrderedDict()
        # Texts to embed come in every length, and their graphs are small.
        self._keep = MAX_GRAPHS if model.shape.n_vocab else 2 * MAX_GRAPHS

    def reserve(self, n_tokens: int, *, n_outputs: int = 1) -> None:
        """Make room for the largest graph there will be, so that later ones fit without a new buffer.

        Args:
            n_tokens: of the largest batch.
            n_outputs: of a model that generates: how many logits are wanted at once.

        Raises:
            ModelError: an adapter changes a tensor that the model does not multiply with.
            OutOfMemoryError: a device has no room.
        """
        variant = PLAIN if self.adapters is None else _Variant(adapters=tuple(range(len(self.adapters))))
        if not self.model.shape.n_vocab:
            n_outputs = n_tokens  # a model that embeds may need every state
        graph, _, _, overlay, _ = self._build(n_tokens, n_outputs, variant, self.cache.reserve_key())
        try:
            if self.adapters is not None and overlay is not None:
                self.adapters.need_applied(overlay)
            self.executor.reserve(graph)
        finally:
            graph.close()

    def run(self, batch: Batch, *, states: bool = False) -> npt.NDArray[np.float32]:
        """Compute a batch.

        Args:
            batch: the tokens.
            states: stop before the model's head.

        Returns:
            What the model answers for each output, ``(n_outputs, n_vocab)`` logits of most (see ``Model.forward``), or
            its states ``(n_outputs, n_embd)``; valid until the next call.

        Raises:
            ContextFullError: the cache has no room; nothing was changed.
            ComputeError: a device failed. The cache then holds positions whose keys may be wrong.
            ParameterError: adapters or segments that the model does not have; nothing was changed.
        """
        began = time.perf_counter()
        variant = PLAIN
        if states or batch.adapters or batch.segments is not None:
            variant = self._variant(batch, states=states)
        self.cache.start(batch)
        plan = self._plan(batch.n_tokens, batch.n_outputs, variant)
        plan.tokens.write(batch.tokens)
        plan.positions.write(batch.positions)
        if plan.output_rows is not None:
            plan.output_rows.write(batch.outputs if batch.n_outputs else NO_OUTPUT)
        if plan.segments is not None and batch.segments is not None:
            plan.segments.write(batch.segments)
        if plan.overlay is not None:
            plan.overlay.set_inputs(batch.adapters)
        plan.view.set_inputs(batch)
        ready = time.perf_counter()
        self.executor.compute(plan.graph)
        done = time.perf_counter()
        if not plan.in_place and plan.out.size:
            lib.ggml_backend_tensor_get(plan.result.ptr, ffi.cast("void *", plan.out.ctypes.data), 0, plan.out.nbytes)
        self.stats.steps += 1
        self.stats.compute_seconds += done - ready
        self.stats.python_seconds += ready - began + time.perf_counter() - done
        return plan.out[: batch.n_outputs]

    def _variant(self, batch: Batch, *, states: bool) -> _Variant:
        n, segments = batch.n_tokens, batch.segments
        active: tuple[int, ...] = ()
        if batch.adapters:
            if self.adapters is None:
                raise ParameterError("the batch uses adapters; none were loaded with the model")
            active = self.adapters.check(batch.adapters, n_tokens=n)
        if segments is not None:
            most = self.model.shape.n_segments
            if segments.shape != (n,) or segments.min() < 0 or segments.max() >= most:
                raise ParameterError(f"segments must be {n} numbers below {most}, one per token")
        return _Variant(states, segments is not None, active)

    def _plan(self, n_tokens: int, n_outputs: int, variant: _Variant) -> _Plan:
        cache_key = self.cache.key()
        key = (n_tokens, n_outputs, variant, cache_key)
        plan = self._plans.get(key)
        if plan is None:
            while len(self._plans) >= self._keep:
                self._plans.popitem(last=False)[1].graph.close()
            plan = self._plans[key] = self._make(n_tokens, n_outputs, variant, cache_key)
            self.stats.graphs_built += 1
            return plan
        self._plans.move_to_end(key)
        if not self.executor.holds(plan.graph):  # laying out again is cheaper than building again
            self.executor.allocate(plan.graph)
            plan.find_output()
        return plan

    def _build(
        self, n_tokens: int, n_outputs: int, variant: _Variant, cache_key: Key
    ) -> tuple[Graph, CacheView, Inputs, Overlay | None, Tensor]:
        adapters = self.adapters if variant.adapters else None
        graph = Graph() if adapters is None else adapters.graph()
        tokens = graph.input(DType.I32, n_tokens, name="tokens")
        positions = graph.input(DType.I32, n_tokens, name="positions")
        n_outputs = max(1, n_outputs)
        rows = graph.input(DType.I32, n_outputs, name="output_rows") if n_outputs < n_tokens else None
        segments = graph.input(DType.I32, n_tokens, name="segments") if variant.segments else None
        inputs = Inputs(tokens, positions, rows, segments)
        view = self.cache.view(graph, n_tokens, cache_key)
        overlay = None
        if adapters is not None:
            overlay = adapters.overlay(graph, variant.adapters, n_tokens=n_tokens, output_rows=rows)
        answer = self.model.states if variant.states else self.model.forward
        return graph, view, inputs, overlay, graph.output(answer(inputs, view), name="result")

    def _make(self, n_tokens: int, n_outputs: int, variant: _Variant, cache_key: Key) -> _Plan:
        graph, view, inputs, overlay, result = self._build(n_tokens, n_outputs, variant, cache_key)
        self.executor.allocate(graph)
        return _Plan(
            graph,
            view,
            HostInput(inputs.tokens, np.int32),
            HostInput(inputs.positions, np.int32),
            None if inputs.output_rows is None else HostInput(inputs.output_rows, np.int32),
            None if inputs.segments is None else HostInput(inputs.segments, np.int32),
            overlay,
            result,
        )

    def close(self) -> None:
        """Free all graphs."""
        for plan in self._plans.values():
            plan.graph.close()
        self._plans.clear()
