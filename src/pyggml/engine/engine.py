"""One model, ready to compute: loading, logits, embeddings, generation."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from operator import index
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pyggml.batch import Batch
from pyggml.closing import Closing
from pyggml.errors import ClosedError, ContextFullError, ModelError, ParameterError
from pyggml.gguf import GGUFFile, ModelMetadata
from pyggml.kvcache import Cache
from pyggml.models import Model, Pooling
from pyggml.sampling import SamplingParams
from pyggml.tensor import Backend, Executor
from pyggml.tokenizer import Tokenizer
from pyggml.weights import Weights

from .config import EngineConfig
from .decoder import Decoder, DecoderStats
from .generation import Generation
from .loaded import LoadedModel
from .pooling import pool

__all__ = ["Engine"]

Floats = npt.NDArray[np.float32]
FIRST = np.zeros(1, np.int64)


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
        self.version = 0
        """Counts the changes of what the cache holds."""
        try:
            self._open(Path(path), progress)
        except BaseException:
            self.close()
            raise
        self.load_seconds = time.perf_counter() - began

    def _open(self, path: Path, progress: Callable[[float], None] | None) -> None:
        self._loaded = self._stack.enter_context(LoadedModel(path, self.config, progress=progress))
        self._tokenizer: Tokenizer | None = None
        self._history: list[int] = []

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
            self._tokenizer = Tokenizer.from_metadata(self.file.metadata, cache_dir=self.config.cache_dir)
        return self._tokenizer

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

    # -- computing ----------------------------------------------------------------------------------------------

    @property
    def stats(self) -> DecoderStats:
        """Counters since the engine was opened."""
        return self._decoder.stats

    @property
    def history(self) -> Sequence[int]:
        """The tokens whose keys and values the cache holds; a live view, not to be changed."""
        return self._history

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
        self.reset()
        return np.concatenate([part.copy() for part in self._feed(ids, wanted)])

    def advance(self, ids: Sequence[int]) -> tuple[Floats, int]:
        """Make ``ids`` what the cache holds, computing only what is new.

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
        kept = self._reusable(ids)
        if kept < len(self._history):
            self._forget(kept)
        (row,) = self._feed(ids[kept:], np.array([len(ids) - kept - 1]))
        return row, kept

    def extend(self, token: int) -> Floats:
        """Append one token to what the cache holds; returns its logits ``(1, n_vocab)``, valid until the next call.

        Raises:
            ContextFullError: the context is full.
            ModelError, ParameterError: as for :meth:`advance`.
        """
        self._need_generation()
        self._check_ids((token,))
        if len(self._history) >= self.n_ctx:
            raise ContextFullError(f"the context of {self.n_ctx} tokens is full")
        (row,) = self._feed([token], FIRST)
        return row

    def _reusable(self, ids: Sequence[int]) -> int:
        """Length of the common prefix that can be kept; the last token is always computed, for its logits."""
        kept, most = 0, min(len(ids) - 1, len(self._history))
        while kept < most and ids[kept] == self._history[kept]:
            kept += 1
        return kept if self.cache.can_resume(0, kept) else 0

    def _forget(self, begin: int) -> None:
        self.cache.remove(0, begin)
        self.version += 1
        del self._history[begin:]

    def _feed(self, ids: Sequence[int], outputs: npt.NDArray[np.int64]) -> Iterator[Floats]:
        """Append tokens in batches; yields the logits of each batch that has any of the wanted ``outputs``."""
        n = self.config.n_batch
        for begin in range(0, len(ids), n):
            part = ids[begin : begin + n]
            inside = outputs[(outputs >= begin) & (outputs < begin + n)] - begin
            batch = Batch.of_sequence(part, start=len(self._history), outputs=inside.astype(np.int32))
            try:
                rows = self._decoder.run(batch)
            except BaseException:
                self.reset()  # what the cache holds is not known any more
                raise
            self._history += part
            self.version += 1
            if inside.size:
                yield rows

    def reset(self) -> None:
        """Forget everything the cache holds."""
        self._need_open()
        self._forget(0)

    def generate(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        *,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
    ) -> Generation:
        """Continue a prompt; iterate over the result for the pieces of text as they come.

        Args:
            prompt: text or token ids.
            params: how to choose tokens.
            max_tokens: stop after so many; None: when the model ends, or the context is full.
            stop: end before the first of these strings.

        Raises:
            ModelError: the model only embeds.
            ParameterError: an empty prompt, an id outside of the vocabulary, or ``max_tokens`` below 1.
            ContextFullError: the prompt does not fit into the context.
        """
        self._need_generation()
        return Generation(self, self._ids(prompt), params or SamplingParams(), max_tokens=max_tokens, stop=stop)

    def embed(self, texts: Sequence[str | Sequence[int]], *, normalize: bool = True) -> Floats:
        """One vector per text, by the model's pooling.

        Args:
            texts: texts or token ids; each at most as long as the context.
            normalize: scale each to length 1.

        Returns:
            ``(len(texts), n_embd)`` float32.

        Raises:
            ModelError: the model has no pooling.
            ContextFullError: a text is too long.
        """
        shape = self.model.shape
        if shape.pooling == Pooling.NONE:
            raise ModelError(f"{self.file.path}: {self.metadata.architecture} does not embed")
        limit = min(self.n_ctx, shape.n_ctx_train)
        vectors = np.empty((len(texts), shape.n_embd), np.float32)
        for i, text in enumerate(texts):
            ids = self._ids(text)
            if len(ids) > limit:
                raise ContextFullError(f"text {i} has {len(ids)} tokens; the context holds {limit}: shorten it")
            outputs = {Pooling.CLS: [0], Pooling.MEAN: range(len(ids)), Pooling.LAST: [len(ids) - 1]}[shape.pooling]
            states = self._decoder.run(Batch.of_sequence(ids, start=0, outputs=outputs))
            vectors[i] = pool(states, shape.pooling, normalize=normalize)
        return vectors

    def _need_room(self, n_tokens: int) -> None:
        if n_tokens > self.n_ctx:
            raise ContextFullError(
                f"{n_tokens} tokens do not fit into a context of {self.n_ctx}; raise n_ctx or shorten the prompt"
            )

    def _need_open(self) -> None:
        if self._closed:
            raise ClosedError("the engine was closed; open the model again")

    def _need_generation(self) -> None:
        if self.model.shape.n_vocab == 0:
            raise ModelError(f"{self.file.path}: {self.metadata.architecture} only embeds; it has no logits")

    # -- life ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Free graphs, cache, weights and threads, in this order; a second call does nothing."""
        self._closed = True
        self._stack.close()
