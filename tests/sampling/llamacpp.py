"""llama.cpp's samplers, called one by one through its C API in the order of its chain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from parity.llamacpp_abi import OracleError, open_llama
from pyggml.sampling import SamplingParams

__all__ = ["Samplers"]

Floats = npt.NDArray[np.float32]

DECLARATIONS = """
struct llama_sampler;
typedef struct { int32_t id; float logit; float p; } llama_token_data;
typedef struct { llama_token_data * data; size_t size; int64_t selected; bool sorted; } llama_token_data_array;
typedef struct { int32_t token; float bias; } llama_logit_bias;
void llama_sampler_accept(struct llama_sampler * smpl, int32_t token);
void llama_sampler_apply(struct llama_sampler * smpl, llama_token_data_array * cur_p);
void llama_sampler_free(struct llama_sampler * smpl);
struct llama_sampler * llama_sampler_init_dist(uint32_t seed);
struct llama_sampler * llama_sampler_init_top_k(int32_t k);
struct llama_sampler * llama_sampler_init_top_p(float p, size_t min_keep);
struct llama_sampler * llama_sampler_init_min_p(float p, size_t min_keep);
struct llama_sampler * llama_sampler_init_typical(float p, size_t min_keep);
struct llama_sampler * llama_sampler_init_temp_ext(float t, float delta, float exponent);
struct llama_sampler * llama_sampler_init_xtc(float p, float t, size_t min_keep, uint32_t seed);
struct llama_sampler * llama_sampler_init_top_n_sigma(float n);
struct llama_sampler * llama_sampler_init_mirostat(int32_t n_vocab, uint32_t seed, float tau, float eta, int32_t m);
struct llama_sampler * llama_sampler_init_mirostat_v2(uint32_t seed, float tau, float eta);
struct llama_sampler * llama_sampler_init_penalties(int32_t n_vocab, int32_t last_n, float repeat, float frequency,
                                                    float presence);
struct llama_sampler * llama_sampler_init_dry(const struct llama_vocab * vocab, float multiplier, float base,
                                              int32_t allowed_length, int32_t last_n, const char ** breakers, size_t n);
struct llama_sampler * llama_sampler_init_logit_bias(int32_t n_vocab, int32_t n, const llama_logit_bias * bias);
"""


class Samplers:
    """libllama, opened; with a model's vocabulary when DRY is to know texts."""

    def __init__(self, library: Path, *, vocabulary: Path | None = None) -> None:
        self.ffi, _ = open_llama(library)
        self.ffi.cdef(DECLARATIONS)
        self.lib: Any = self.ffi.dlopen(str(library))
        self._on_log = self.ffi.callback("void(int, const char *, void *)", lambda level, text, data: None)
        self.lib.llama_log_set(self._on_log, self.ffi.NULL)
        self._vocab: Any = self.ffi.NULL
        if vocabulary is not None:
            params = self.lib.llama_model_default_params()
            params.vocab_only = True
            model = self.lib.llama_model_load_from_file(str(vocabulary).encode(), params)
            if model == self.ffi.NULL:
                raise OracleError(f"llama.cpp cannot load the vocabulary of {vocabulary}")
            self._model = self.ffi.gc(model, self.lib.llama_model_free)
            self._vocab = self.lib.llama_model_get_vocab(self._model)

    def chances(self, logits: Floats, recent: Sequence[int], p: SamplingParams) -> dict[int, float]:
        """The candidates that llama.cpp's chain leaves, with their probabilities.

        Tokens at -inf are taken out between samplers, as ours does; llama.cpp leaves them among the candidates, where
        `typical` would make NaN of them and dynamic temperature would count them.
        """
        kept = [(token, float(logit)) for token, logit in enumerate(logits) if logit > -np.inf]
        out: dict[int, float] = {}
        for sampler in self._chain(p, len(logits)):
            out, kept = self._apply(sampler, recent, kept)
        return out

    def dry_losses(self, text: Sequence[int], p: SamplingParams) -> list[dict[int, float]]:
        """What DRY takes from the logits of the tokens of a text, after each token of it."""
        sampler = self.ffi.gc(self._dry(p), self.lib.llama_sampler_free)
        tokens, found = sorted(set(text)), []
        for token in text:
            self.lib.llama_sampler_accept(sampler, token)
            data = self.ffi.new("llama_token_data[]", [(id, 0.0, 0.0) for id in tokens])
            array = self.ffi.new("llama_token_data_array *", {"data": data, "size": len(tokens), "selected": -1})
            self.lib.llama_sampler_apply(sampler, array)
            found.append({data[i].id: -data[i].logit for i in range(len(tokens)) if data[i].logit})
        return found

    def _dry(self, p: SamplingParams) -> Any:
        texts = [self.ffi.new("char[]", text.encode()) for text in p.dry_sequence_breakers]
        dry = (p.dry_multiplier, p.dry_base, p.dry_allowed_length, p.dry_penalty_last_n)
        return self.lib.llama_sampler_init_dry(self._vocab, *dry, self.ffi.new("char *[]", texts), len(texts))

    def _apply(
        self, sampler: Any, recent: Sequence[int], kept: list[tuple[int, float]]
    ) -> tuple[dict[int, float], list[tuple[int, float]]]:
        sampler = self.ffi.gc(sampler, self.lib.llama_sampler_free)
        for token in recent:
            self.lib.llama_sampler_accept(sampler, token)
        data = self.ffi.new("llama_token_data[]", [(token, logit, 0.0) for token, logit in kept])
        array = self.ffi.new("llama_token_data_array *", {"data": data, "size": len(kept), "selected": -1})
        self.lib.llama_sampler_apply(sampler, array)
        left = [(array.data[i].id, array.data[i].logit, array.data[i].p) for i in range(array.size)]
        chances = {token: chance for token, logit, chance in left if logit > -np.inf}
        return chances, [(token, logit) for token, logit, _ in left if logit > -np.inf]

    def _chain(self, p: SamplingParams, n: int) -> list[Any]:
        lib, ffi = self.lib, self.ffi
        bias = ffi.new("llama_logit_bias[]", list(dict(p.logit_bias).items()))
        penalties = (p.repeat_last_n, p.repeat_penalty, p.frequency_penalty, p.presence_penalty)
        if p.mirostat == 1:
            last = lib.llama_sampler_init_mirostat(n, 1, p.mirostat_tau, p.mirostat_eta, 100)
        else:
            last = lib.llama_sampler_init_mirostat_v2(1, p.mirostat_tau, p.mirostat_eta)
        before = [
            lib.llama_sampler_init_logit_bias(n, len(bias), bias),
            lib.llama_sampler_init_penalties(n, *penalties),
            self._dry(p),
        ]
        heat = lib.llama_sampler_init_temp_ext(p.temperature, p.dynatemp_range, p.dynatemp_exponent)
        if p.mirostat:
            return [*before, heat, last]
        return [
            *before,
            lib.llama_sampler_init_top_n_sigma(p.top_n_sigma),
            lib.llama_sampler_init_top_k(p.top_k),
            lib.llama_sampler_init_typical(p.typical_p, p.min_keep),
            lib.llama_sampler_init_top_p(p.top_p, p.min_keep),
            lib.llama_sampler_init_min_p(p.min_p, p.min_keep),
            lib.llama_sampler_init_xtc(p.xtc_probability, p.xtc_threshold, p.min_keep, 1),
            heat,
            lib.llama_sampler_init_dist(1),
        ]
