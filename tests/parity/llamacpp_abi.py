"""The part of llama.cpp's C API that the oracle calls, opened with cffi in ABI mode.

ABI mode trusts the declarations below instead of a compiler, so they hold for the llama.cpp named in
README.md; `open_llama` refuses a library whose default parameters do not read back as that version sets them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cffi import FFI

LIBRARY_VARIABLE = "PYGGML_LLAMA_LIB"

_DECLARATIONS = """
typedef int32_t llama_token;
typedef int32_t llama_pos;
typedef int32_t llama_seq_id;
struct llama_model;
struct llama_context;
struct llama_vocab;
typedef struct llama_memory_i * llama_memory_t;

struct llama_model_params {
    void * devices;
    const void * tensor_buft_overrides;
    int32_t n_gpu_layers;
    int split_mode;
    int load_mode;
    int lazy_mode;
    int32_t main_gpu;
    const float * tensor_split;
    void * progress_callback;
    void * progress_callback_user_data;
    const void * kv_overrides;
    bool vocab_only;
    bool check_tensors;
    bool use_extra_bufts;
    bool no_host;
    bool no_alloc;
    bool load_mtp;
};

struct llama_context_params {
    uint32_t n_ctx;
    uint32_t n_batch;
    uint32_t n_ubatch;
    uint32_t n_seq_max;
    uint32_t n_rs_seq;
    uint32_t n_outputs_max;
    uint32_t n_outputs_max_per_seq;
    int32_t n_threads;
    int32_t n_threads_batch;
    int ctx_type;
    int rope_scaling_type;
    int pooling_type;
    int attention_type;
    int flash_attn_type;
    float rope_freq_base;
    float rope_freq_scale;
    float yarn_ext_factor;
    float yarn_attn_factor;
    float yarn_beta_fast;
    float yarn_beta_slow;
    uint32_t yarn_orig_ctx;
    float defrag_thold;
    void * cb_eval;
    void * cb_eval_user_data;
    int type_k;
    int type_v;
    void * abort_callback;
    void * abort_callback_data;
    bool embeddings;
    bool offload_kqv;
    bool no_perf;
    bool op_offload;
    bool swa_full;
    bool kv_unified;
    void * samplers;
    size_t n_samplers;
    void * ctx_other;
};

typedef struct llama_batch {
    int32_t n_tokens;
    llama_token * token;
    float * embd;
    llama_pos * pos;
    int32_t * n_seq_id;
    llama_seq_id ** seq_id;
    int8_t * logits;
} llama_batch;

const char * llama_version(void);
const char * ggml_version(void);
const char * ggml_commit(void);
const char * llama_print_system_info(void);
void llama_backend_init(void);
void llama_log_set(void (*callback)(int level, const char * text, void * user_data), void * user_data);

struct llama_model_params llama_model_default_params(void);
struct llama_context_params llama_context_default_params(void);
struct llama_model * llama_model_load_from_file(const char * path, struct llama_model_params params);
void llama_model_free(struct llama_model * model);
const struct llama_vocab * llama_model_get_vocab(const struct llama_model * model);
int32_t llama_vocab_n_tokens(const struct llama_vocab * vocab);
struct llama_context * llama_init_from_model(struct llama_model * model, struct llama_context_params params);
void llama_free(struct llama_context * ctx);
llama_memory_t llama_get_memory(const struct llama_context * ctx);
void llama_memory_clear(llama_memory_t mem, bool data);

struct llama_batch llama_batch_init(int32_t n_tokens, int32_t embd, int32_t n_seq_max);
void llama_batch_free(struct llama_batch batch);
int32_t llama_decode(struct llama_context * ctx, struct llama_batch batch);
float * llama_get_logits_ith(struct llama_context * ctx, int32_t i);

int32_t llama_tokenize(const struct llama_vocab * vocab, const char * text, int32_t text_len,
                       llama_token * tokens, int32_t n_tokens_max, bool add_special, bool parse_special);
int32_t llama_detokenize(const struct llama_vocab * vocab, const llama_token * tokens, int32_t n_tokens,
                         char * text, int32_t text_len_max, bool remove_special, bool unparse_special);
"""


class OracleError(RuntimeError):
    """llama.cpp is missing, of another version, or refused a call; the message says which."""


def library_path() -> Path:
    """Path of libllama from the environment.

    Raises:
        OracleError: the variable is unset or names no file.
    """
    value = os.environ.get(LIBRARY_VARIABLE)
    if not value:
        raise OracleError(f"{LIBRARY_VARIABLE} is not set: point it at libllama.so, see tests/parity/README.md")
    path = Path(value)
    if not path.is_file():
        raise OracleError(f"{LIBRARY_VARIABLE}={value}: no such file")
    return path


def open_llama(path: Path) -> tuple[FFI, Any]:
    """Open libllama at `path` and check that its structures are the declared ones.

    Returns the FFI object and the library (typed Any: cffi's libraries have no static type).

    Raises:
        OracleError: the file cannot be loaded, or its parameter structures have another layout.
    """
    ffi = FFI()
    ffi.cdef(_DECLARATIONS)
    try:
        lib: Any = ffi.dlopen(str(path))
        version = ffi.string(lib.llama_version()).decode()
    except (OSError, AttributeError) as error:
        raise OracleError(f"{path} cannot be used as libllama: {error}") from error
    lib.llama_backend_init()
    _check_layout(lib, path, version)
    return ffi, lib


def _check_layout(lib: Any, path: Path, version: str) -> None:
    """Known defaults sit before and behind every field we set, so that a moved field shows."""
    context = lib.llama_context_default_params()
    model = lib.llama_model_default_params()
    found = (
        (context.n_ctx, context.n_batch, context.n_ubatch, context.n_seq_max),
        (context.flash_attn_type, context.rope_freq_base, context.yarn_ext_factor, context.defrag_thold),
        (context.type_k, context.type_v),
        (context.embeddings, context.offload_kqv, context.no_perf, context.op_offload, context.swa_full),
        (context.n_samplers, model.use_extra_bufts, model.vocab_only, model.check_tensors),
    )
    expected = (
        (512, 2048, 512, 1),
        (-1, 0.0, -1.0, -1.0),
        (1, 1),
        (False, True, True, True, True),
        (0, True, False, False),
    )
    if found != expected:
        raise OracleError(
            f"{path} (version {version}): default parameters read back as {found}, expected {expected}; "
            "its structures differ from llamacpp_abi.py, use the version that README.md names"
        )
