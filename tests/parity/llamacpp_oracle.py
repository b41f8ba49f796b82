"""Ask llama.cpp for token ids, logits and greedy continuations of a GGUF file.

PYGGML_LLAMA_LIB=.../libllama.so python -m tests.parity.llamacpp_oracle MODEL.gguf "Once upon a time"
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from .llamacpp_abi import OracleError, library_path, open_llama

Ids = npt.NDArray[np.int32]
Logits = npt.NDArray[np.float32]

GGML_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "bf16": 30}
"""Types llama.cpp accepts for the cache, with their numbers in `enum ggml_type`."""

_LOG_LEVEL_DEBUG = 1

MAX_OUTPUTS = 64
"""Rows of logits that one call may ask for (llama.cpp reserves memory for all of them)."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How llama.cpp computes: everything that can move the last bits of a logit."""

    flash: bool = True
    type_k: str = "f16"
    type_v: str = "f16"
    n_threads: int = 2
    n_ctx: int = 2048
    n_ubatch: int = 512
    swa_full: bool = False


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """A greedy continuation; row i belongs to the i-th new token (end-of-text does not stop it)."""

    ids: Ids
    runner_up: Ids
    top_logit: Logits
    margin: Logits
    """Logit of the chosen token minus that of the second best."""


class Oracle:
    """One GGUF file loaded by llama.cpp. Owns the native model: use `with`, or call `close`."""

    def __init__(self, model: Path, *, library: Path | None = None, repack: bool = True) -> None:
        """Load `model` on the CPU.

        Args:
            model: GGUF file.
            library: libllama; by default the one that PYGGML_LLAMA_LIB names.
            repack: let llama.cpp rearrange weights for its own kernels (its default).

        Raises:
            OracleError: no usable libllama, or llama.cpp cannot load the file.
        """
        self._log: list[str] = []
        self._ffi, self._lib = open_llama(library or library_path())
        self._on_log = self._ffi.callback("void(int, const char *, void *)", self._keep_log)
        self._lib.llama_log_set(self._on_log, self._ffi.NULL)
        params = self._lib.llama_model_default_params()
        params.use_extra_bufts = repack
        self._model: Any = self._lib.llama_model_load_from_file(str(model).encode(), params)
        if self._model == self._ffi.NULL:
            raise OracleError(f"llama.cpp cannot load {model}; its last words: {self.log[-400:]}")
        self._vocab = self._lib.llama_model_get_vocab(self._model)
        self.n_vocab: int = self._lib.llama_vocab_n_tokens(self._vocab)

    def _keep_log(self, level: int, text: Any, _data: Any) -> None:
        if level != _LOG_LEVEL_DEBUG:
            self._log.append(self._ffi.string(text).decode(errors="replace"))

    @property
    def log(self) -> str:
        """What llama.cpp has logged so far, debug lines left out: buffer types, cache and graph sizes."""
        return "".join(self._log)

    @property
    def versions(self) -> dict[str, str]:
        """Version strings of the library and the CPU features it was built for."""
        text = {
            "llama.cpp": self._lib.llama_version(),
            "ggml": self._lib.ggml_version(),
            "ggml_commit": self._lib.ggml_commit(),
            "system_info": self._lib.llama_print_system_info(),
        }
        return {name: self._ffi.string(value).decode().strip() for name, value in text.items()}

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> Ids:
        """Token ids of `text`; `add_special` puts BOS/EOS where the file's metadata asks for them."""
        raw = text.encode()
        room = len(raw) + 16
        buffer = np.empty(room, np.int32)
        count = self._lib.llama_tokenize(
            self._vocab, raw, len(raw), self._ids_pointer(buffer), room, add_special, parse_special
        )
        if count < 0:
            raise OracleError(f"llama_tokenize wants {-count} places for {len(raw)} bytes, {room} were given")
        return buffer[:count].copy()

    def detokenize(self, ids: Sequence[int] | Ids) -> str:
        """Text of `ids`, special tokens spelt out; bytes that are not UTF-8 become U+FFFD."""
        array = np.ascontiguousarray(ids, np.int32)
        room = 64 * len(array) + 64
        buffer = self._ffi.new("char[]", room)
        count = self._lib.llama_detokenize(self._vocab, self._ids_pointer(array), len(array), buffer, room, False, True)
        if count < 0:
            raise OracleError(f"llama_detokenize wants {-count} bytes for {len(array)} tokens")
        return bytes(self._ffi.buffer(buffer, count)).decode(errors="replace")

    def logits(self, ids: Ids, positions: Sequence[int], *, config: RunConfig) -> Logits:
        """Logits after a batched prefill, numpy shape (len(positions), n_vocab).

        Args:
            ids: the prompt.
            positions: indices into `ids`, ascending, at most MAX_OUTPUTS.
            config: how to compute.

        Raises:
            OracleError: too many positions, or llama.cpp fails.
        """
        if len(positions) > MAX_OUTPUTS:
            raise OracleError(f"{len(positions)} positions asked, at most {MAX_OUTPUTS} in one call")
        with self._context(config, len(ids)) as ctx:
            self._decode(ctx, ids, 0, set(positions))
            return np.stack([self._row(ctx, position) for position in positions])

    def greedy(self, ids: Ids, n_tokens: int, *, config: RunConfig) -> Greedy:
        """Prefill `ids` in one batch, then take the most likely token `n_tokens` times.

        Raises:
            OracleError: llama.cpp fails or the context is too small.
        """
        steps = np.zeros((n_tokens, 2), np.int32)
        values = np.zeros((n_tokens, 2), np.float32)
        with self._context(config, len(ids) + n_tokens) as ctx:
            self._decode(ctx, ids, 0, {len(ids) - 1})
            row = self._row(ctx, len(ids) - 1)
            for step in range(n_tokens):
                steps[step] = top_ids(row, 2)
                values[step] = row[steps[step]]
                if step + 1 < n_tokens:
                    self._decode(ctx, steps[step, :1], len(ids) + step, {0})
                    row = self._row(ctx, 0)
        return Greedy(
            ids=steps[:, 0].copy(),
            runner_up=steps[:, 1].copy(),
            top_logit=values[:, 0].copy(),
            margin=values[:, 0] - values[:, 1],
        )

    @contextmanager
    def _context(self, config: RunConfig, n_tokens: int) -> Iterator[Any]:
        if n_tokens > config.n_ctx:
            raise OracleError(f"{n_tokens} tokens do not fit n_ctx={config.n_ctx}")
        params = self._lib.llama_context_default_params()
        params.n_ctx = config.n_ctx
        params.n_batch = config.n_ctx
        params.n_ubatch = config.n_ubatch
        params.n_outputs_max = MAX_OUTPUTS
        params.n_outputs_max_per_seq = MAX_OUTPUTS
        params.n_threads = params.n_threads_batch = config.n_threads
        params.flash_attn_type = int(config.flash)
        params.type_k = GGML_TYPES[config.type_k]
        params.type_v = GGML_TYPES[config.type_v]
        params.swa_full = config.swa_full
        ctx = self._lib.llama_init_from_model(self._model, params)
        if ctx == self._ffi.NULL:
            raise OracleError(f"llama.cpp refuses {config}; its last words: {self.log[-400:]}")
        try:
            yield ctx
        finally:
            self._lib.llama_free(ctx)

    def _decode(self, ctx: Any, ids: Ids, start: int, outputs: set[int]) -> None:
        """Run `ids` at positions from `start`; `outputs` are the indices whose logits are kept."""
        batch = self._lib.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for i, token in enumerate(ids):
                batch.token[i] = int(token)
                batch.pos[i] = start + i
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = 0
                batch.logits[i] = i in outputs
            status = self._lib.llama_decode(ctx, batch)
        finally:
            self._lib.llama_batch_free(batch)
        if status != 0:
            raise OracleError(f"llama_decode returned {status}; its last words: {self.log[-400:]}")

    def _row(self, ctx: Any, index: int) -> Logits:
        pointer = self._lib.llama_get_logits_ith(ctx, index)
        if pointer == self._ffi.NULL:
            raise OracleError(f"llama.cpp kept no logits for index {index}")
        raw = self._ffi.buffer(pointer, self.n_vocab * 4)
        return np.frombuffer(raw, np.float32).copy()

    def _ids_pointer(self, array: Ids) -> Any:
        return self._ffi.cast("int32_t *", array.ctypes.data)

    def close(self) -> None:
        """Free the native model; further calls are errors."""
        if self._model is not None:
            self._lib.llama_model_free(self._model)
            self._lib.llama_log_set(self._ffi.NULL, self._ffi.NULL)
            self._model = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def top_ids(row: Logits, count: int) -> Ids:
    """Ids of the `count` largest logits, best first; equal logits in order of id."""
    threshold = np.partition(row, -count)[-count]
    candidates = np.flatnonzero(row >= threshold)
    order = np.argsort(-row[candidates], kind="stable")[:count]
    return candidates[order].astype(np.int32)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print ids, the continuation and its narrowest margins for one prompt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("prompt")
    parser.add_argument("-n", "--n-tokens", type=int, default=32)
    parser.add_argument("--no-flash", action="store_true")
    options = parser.parse_args(arguments)
    with Oracle(options.model) as oracle:
        ids = oracle.tokenize(options.prompt, parse_special=True)
        run = oracle.greedy(ids, options.n_tokens, config=RunConfig(flash=not options.no_flash))
        print("prompt ids:", ids.tolist())
        print("text:", oracle.detokenize(run.ids))
        print("ids:", run.ids.tolist())
        print("narrowest margin:", float(run.margin.min()), "at step", int(run.margin.argmin()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
