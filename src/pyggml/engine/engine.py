"""One model, ready to compute: loading, logits, embeddings, generation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pyggml.batch import MAX_SEQUENCES, Batch
from pyggml.closing import Closing
from pyggml.errors import ClosedError, ContextFullError, ModelError, ParameterError
from pyggml.gguf import GGUFFile, ModelMetadata
from pyggml.grammar import Grammar
from pyggml.kvcache import Cache
from pyggml.models import CacheKind, Model, can_shift
from pyggml.sampling import DryBreakers, SamplingParams
from pyggml.tensor import Backend, Executor
from pyggml.tokenizer import Tokenizer
from pyggml.weights import Weights

from .config import EngineConfig
from .decoder import Decoder, DecoderStats
from .drafting import Drafter
from .embedding import Embedder
from .generation import Generation
from .loaded import LoadedModel
from .metrics import StepMetrics
from .request import Request
from .scheduler import Scheduler
from .slots import Slot, Slots
from .task import Task
from .tasks import create_task, prompt_too_long

if TYPE_CHECKING:
    from pyggml.grammar import GrammarCompiler

    from .prefixes import SavedPrefixes

__all__ = ["Engine"]

Floats = npt.NDArray[np.float32]
FIRST = np.zeros(1, np.int64)
MOST_BREAKERS = 8  # lists of texts from requests; each costs a look at the whole vocabulary


class Engine(Closing):
    """A model file opened on a device. One thread at a time may use it.

    Use it as a context manager, or call :meth:`close`.
    """

    def __init__(
        self, path: str | Path, config: EngineConfig | None = None, *, progress: Callable[[float], None] | None = None
    ) -> None:
        """Open a model.

        Args:
            path: a GGUF file.
            config: options; the defaults suit a desktop.
            progress: called with the fraction of the weights loaded, 0 to 1.

        Raises:
            GGUFError, ModelError, TokenizerError: the file cannot be run; the message says why.
            BackendError: no such device. OutOfMemoryError: it has no room.
            ParameterError: options that do not go together.
        """
        began = time.perf_counter()
        self.config = config or EngineConfig()
        self._stack = ExitStack()
        self._closed = False
        try:
            self._open(Path(path), progress)
        except BaseException:
            self.close()
            raise
        self.load_seconds = time.perf_counter() - began

    def _open(self, path: Path, progress: Callable[[float], None] | None) -> None:
        self._loaded = self._stack.enter_context(LoadedModel(path, self.config, progress=progress))
        self._tokenizer: Tokenizer | None = None
        self._grammars: GrammarCompiler | None = None
        self._embedder: Embedder | None = None
        self._breakers: dict[tuple[str, ...], DryBreakers] = {}
        config = self.config
        slots = Slots(self.cache, config.n_parallel, saved=self._open_saved())
        self.scheduler = Scheduler(
            self._decoder,
            self.cache,
            slots,
            n_ctx=self.n_ctx,
            n_batch=config.n_batch,
            n_chunk=config.n_chunk,
            can_shift=can_shift(self.model),
        )
        """What runs requests; for those who drive it themselves."""
        self._slot: Slot | None = None
        self._taken = 0
        self._advanced: list[int] = []

    def _open_saved(self) -> SavedPrefixes | None:
        config, shape = self.config, self.model.shape
        if config.snapshot_dir is None or shape.cache != CacheKind.CAUSAL:
            return None
        from .prefixes import SavedPrefixes, file_key  # here: what they need is 4 MiB that most engines do without
        from .snapshots import SnapshotStore

        key = f"{file_key(self.file)} {config.type_k.name} {config.type_v.name}"
        store = SnapshotStore(config.snapshot_dir, max_bytes=config.snapshot_bytes, model_key=key)
        saved = SavedPrefixes(
            store,
            self.cache,
            min_tokens=config.snapshot_min_tokens,
            windowed=any(layer.window or layer.chunk for layer in shape.layers),
        )
        return self._stack.enter_context(saved)

    # -- what was loaded ----------------------------------------------------------------------------------------

    @property
    def file(self) -> GGUFFile:
        """The model's file."""
        return self._loaded.file

    @property
    def metadata(self) -> ModelMetadata:
        """The file's metadata, by the architecture's names."""
        return self._loaded.metadata

    @property
    def model(self) -> Model:
        """The architecture with its weights."""
        return self._loaded.model

    @property
    def weights(self) -> Weights:
        """Where the tensors live."""
        return self._loaded.weights

    @property
    def cache(self) -> Cache:
        """Keys and values."""
        return self._loaded.cache

    @property
    def executor(self) -> Executor:
        """What computes."""
        return self._loaded.executor

    @property
    def backends(self) -> Sequence[Backend]:
        """The devices, the preferred one first."""
        return self._loaded.backends

    @property
    def n_ctx(self) -> int:
        """Positions a sequence can have."""
        return self._loaded.n_ctx

    @property
    def flash_attn(self) -> bool:
        """Whether attention is fused."""
        return self._loaded.flash_attn

    @property
    def _decoder(self) -> Decoder:
        return self._loaded.decoder

    # -- text ---------------------------------------------------------------------------------------------------

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, built at first use."""
        if self._tokenizer is None:
            self._need_open()
            self._tokenizer = Tokenizer.from_metadata(self.file.metadata, cache_dir=self.config.cache_dir, defer=True)
        return self._tokenizer

    @property
    def grammars(self) -> GrammarCompiler:
        """Compiles grammars for the model's vocabulary; built at first use."""
        if self._grammars is None:
            from pyggml.grammar import GrammarCompiler  # here: see that room's door

            compiler = GrammarCompiler(self.tokenizer, n_vocab=self.model.shape.n_vocab)
            self._grammars = self._stack.enter_context(compiler)
        return self._grammars

    def dry_breakers(self, params: SamplingParams) -> DryBreakers | None:
        """The texts that no repeat reaches across, in the model's tokens; None when DRY is off."""
        texts = tuple(params.dry_sequence_breakers)
        if not (params.dries and texts):
            return None
        if texts not in self._breakers:
            if len(self._breakers) >= MOST_BREAKERS:
                self._breakers.clear()
            tokenizer = self.tokenizer
            pieces = [tokenizer.token_bytes(i) for i in range(tokenizer.n_vocab)]
            encode = partial(tokenizer.encode, add_special=False, parse_special=False)
            self._breakers[texts] = DryBreakers.from_texts(texts, pieces=pieces, encode=encode)
        return self._breakers[texts]

    @property
    def n_adapters(self) -> int:
        """LoRA adapters that requests can use."""
        adapters = self._decoder.adapters
        return 0 if adapters is None else len(adapters)

    def _ids(self, prompt: str | Sequence[int]) -> list[int]:
        self._need_open()
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else [index(t) for t in prompt]
        self._check_ids(ids)
        return ids

    def _check_ids(self, ids: Sequence[int]) -> None:
        """ggml ends the process on a row that the embedding lacks."""
        self._need_open()
        n_vocab = self.model.shape.n_vocab or self.tokenizer.n_vocab
        if not len(ids):
            raise ParameterError("the prompt is empty: there is nothing to continue")
        if min(ids) < 0 or max(ids) >= n_vocab:
            bad = next(t for t in ids if not 0 <= t < n_vocab)
            raise ParameterError(f"token id {bad} is outside of the vocabulary of {n_vocab}")

    # -- one sequence at a time ---------------------------------------------------------------------------------

    @property
    def stats(self) -> DecoderStats:
        """Counters of the graphs since the engine was opened."""
        return self._decoder.stats

    @property
    def history(self) -> Sequence[int]:
        """The tokens whose keys and values the sequence used last holds; a live view, not to be changed."""
        return max(self.scheduler.slots.slots, key=lambda slot: slot.used).tokens

    def logits(self, prompt: str | Sequence[int], *, outputs: str | Sequence[int] = "last") -> Floats:
        """Logits for a prompt.

        Args:
            prompt: text or token ids.
            outputs: ``"last"`` or ``"all"`` tokens, or ascending indices of tokens.

        Returns:
            ``(n_outputs, n_vocab)`` float32.

        Raises:
            ContextFullError: the prompt is longer than ``n_ctx``.
            ModelError: the model only embeds.
            ParameterError: ``outputs`` are no ascending indices of the prompt.
        """
        self._need_generation()
        ids = self._ids(prompt)
        if isinstance(outputs, str) and outputs == "last":
            row, _ = self.advance(ids)
            return row.copy()
        if isinstance(outputs, str) and outputs != "all":
            raise ParameterError(f"outputs must be 'last', 'all' or indices, got {outputs!r}")
        wanted = np.arange(len(ids)) if isinstance(outputs, str) else np.asarray(outputs, np.int64)
        if not wanted.size or wanted[0] < 0 or wanted[-1] >= len(ids) or (np.diff(wanted) <= 0).any():
            raise ParameterError(f"outputs must be ascending indices below {len(ids)}, got {wanted.tolist()}")
        self._need_room(len(ids))
        slot, _ = self._take(ids)
        self.scheduler.slots.forget(slot)
        return np.concatenate([part.copy() for part in self._feed(slot, ids, wanted)])

    def advance(self, ids: Sequence[int]) -> tuple[Floats, int]:
        """Make ``ids`` what a sequence of the cache holds, computing only what is new.

        Returns:
            The logits of the last token ``(1, n_vocab)``, valid until the next call, and how many tokens were
            already there.

        Raises:
            ContextFullError: there are more than ``n_ctx``.
            ModelError: the model only embeds.
            ParameterError: no ids, or one outside of the vocabulary.
        """
        self._need_generation()
        self._check_ids(ids)
        self._need_room(len(ids))
        slot, kept = self._take(ids)
        (row,) = self._feed(slot, ids[kept:], np.array([len(ids) - kept - 1]))
        return row, kept

    def extend(self, token: int) -> Floats:
        """Append one token after :meth:`advance`; returns its logits ``(1, n_vocab)``, valid until the next call.

        Raises:
            ContextFullError: the context is full.
            ModelError, ParameterError: as for :meth:`advance`.
        """
        self._need_generation()
        self._check_ids((token,))
        if len(self._advanced) >= self.n_ctx:
            raise ContextFullError(f"the context of {self.n_ctx} tokens is full")
        slot = self._slot
        if slot is None or slot.owner is not None or slot.used != self._taken:
            row, _ = self.advance([*self._advanced, token])  # somebody else used the sequence since
            return row
        (row,) = self._feed(slot, [token], FIRST)
        return row

    def _take(self, ids: Sequence[int]) -> tuple[Slot, int]:
        """An idle sequence with the longest prefix of ``ids``; a running request gives way if there is none."""
        if not self.scheduler.slots.n_idle:
            self.scheduler.preempt_one()
        found = self.scheduler.slots.acquire(list(ids), self)
        assert found is not None
        slot, kept = found
        self.scheduler.slots.release(slot)
        self._slot, self._taken, self._advanced = slot, slot.used, list(ids[:kept])
        return slot, kept

    def _feed(self, slot: Slot, ids: Sequence[int], outputs: npt.NDArray[np.int64]) -> Iterator[Floats]:
        """Append tokens in batches; yields the logits of each batch that has any of the wanted ``outputs``."""
        n = self.config.n_batch
        for begin in range(0, len(ids), n):
            part = ids[begin : begin + n]
            inside = outputs[(outputs >= begin) & (outputs < begin + n)] - begin
            batch = Batch.of_sequence(part, start=len(slot.tokens), seq_id=slot.seq_id, outputs=inside.astype(np.int32))
            try:
                rows = self.scheduler.compute(batch)
            except BaseException:
                self.scheduler.slots.forget(slot)  # what the cache holds is not known any more
                self._advanced = []
                raise
            slot.tokens += part
            self._advanced += part
            if inside.size:
                yield rows

    def reset(self) -> None:
        """Forget everything the cache holds; running requests read their prompts again."""
        self._need_open()
        self.scheduler.forget_all()
        self._slot, self._advanced = None, []

    # -- many at once -------------------------------------------------------------------------------------------

    @property
    def metrics(self) -> StepMetrics:
        """Counters of the scheduler since the engine was opened."""
        return self.scheduler.metrics

    def generate(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        *,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        grammar: Grammar | None = None,
        drafter: Drafter | None = None,
        logprobs: int | None = None,
    ) -> Generation:
        """Continue a prompt; iterate over the result for the pieces of text as they come.

        Args:
            prompt: text or token ids.
            params: how to choose tokens.
            max_tokens: stop after so many; None: when the model ends, or the context is full.
            stop: end before the first of these strings.
            grammar: what the answer must look like.
            drafter: proposes tokens (speculative decoding); the answer stays the same.
            logprobs: report so many of the most likely tokens with each.

        Raises:
            ModelError: the model only embeds.
            ParameterError: an empty prompt, an id outside of the vocabulary, or an option out of its range.
            ContextFullError: the prompt does not fit into the context.
        """
        return self.run(
            Request(
                self._ids(prompt),
                params or SamplingParams(),
                max_tokens=max_tokens,
                stop=stop,
                grammar=grammar,
                drafter=drafter,
                logprobs=logprobs,
            )
        )

    def run(self, request: Request) -> Generation:
        """Start a request; iterate over the result. Exceptions as for :meth:`generate`."""
        return Generation(self, self.submit(request))

    def submit(self, request: Request) -> Task:
        """Queue a request, to be driven by :meth:`step`; any thread may call this. Exceptions as for :meth:`generate`.

        The pieces of the answer come out of ``outputs`` of the returned task, until it is ``finished``.
        """
        self._need_generation()
        self._check_ids(request.ids)
        task = create_task(request, self)
        self.scheduler.submit(task)
        return task

    def step(self) -> list[Task]:
        """Compute one batch of all requests; see :meth:`Scheduler.step`."""
        self._need_open()
        return self.scheduler.step()

    @property
    def embedder(self) -> Embedder:
        """Vectors and scores of many texts with all options and counts; made at first use."""
        if self._embedder is None:
            self._embedder = Embedder(
                self._decoder,
                self.tokenizer,
                self.metadata,
                n_ctx=self.n_ctx,
                n_batch=self.config.n_batch,
                sequences=range(self.config.n_parallel, MAX_SEQUENCES),
                make_room=self.scheduler.slots.evict,
            )
        self._need_open()
        return self._embedder

    def embed(
        self,
        texts: Sequence[str | Sequence[int]],
        *,
        normalize: bool = True,
        dimensions: int | None = None,
        truncate: bool = False,
    ) -> Floats:
        """One vector per text, by the model's pooling (the mean, for a model that names none).

        Args:
            texts: texts or token ids.
            normalize: scale each to length 1.
            dimensions: keep so many numbers of each, for models trained for that; None: all.
            truncate: cut texts that are longer than the context; False: refuse them.

        Returns:
            ``(len(texts), n_embd)`` float32.

        Raises:
            ModelError: the model ranks instead.
            ContextFullError: a text is too long.
            ParameterError: a text without tokens, or an option out of its range.
        """
        embedder = self.embedder
        return embedder.embed(texts, normalize=normalize, dimensions=dimensions, truncate=truncate).vectors

    def rerank(self, query: str, documents: Sequence[str], *, truncate: bool = False) -> Floats:
        """How well each document answers the query, by a cross-encoder: ``(len(documents))`` float32, higher is better.

        Raises:
            ModelError: the model does not rank.
            ContextFullError: query and document are too long together, and may not be truncated.
        """
        return self.embedder.rerank(query, documents, truncate=truncate).scores

    def _need_room(self, n_tokens: int) -> None:
        if n_tokens > self.n_ctx:
            raise prompt_too_long(n_tokens, self.n_ctx)

    def _need_open(self) -> None:
        if self._closed:
            raise ClosedError("the engine was closed; open the model again")

    def _need_generation(self) -> None:
        if self.model.shape.n_vocab == 0:
            raise ModelError(f"{self.file.path}: {self.metadata.architecture} only embeds; it has no logits")

    # -- life ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Free graphs, cache, weights and threads, in this order; a second call does nothing."""
        if not self._closed and hasattr(self, "scheduler"):
            self.scheduler.slots.keep_all()
        self._closed = True
        self._stack.close()
