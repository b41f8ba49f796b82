// The recent tokens of a sampler, and what they do to logits. Internal to the sampler.
#ifndef PYGGML_SAMPLER_HISTORY_H
#define PYGGML_SAMPLER_HISTORY_H
#include "sampler.h"

#include <stdbool.h>

// One number per token, for few tokens: open addressing, size a power of two with room to spare.
typedef struct {
    int32_t token;
    int32_t number;
} history_slot;

typedef struct {
    int32_t capacity; // tokens remembered; 0: none ever matter
    int32_t length;
    int32_t next;      // where the next token goes in ring
    int32_t * ring;    // capacity
    int32_t * recent;  // capacity, scratch: latest first
    int32_t * repeats; // capacity, scratch
    history_slot * slots;
    uint32_t n_slots;
} history;

bool pyggml_history_init(history * h, const struct pyggml_sampling * o);
bool pyggml_history_copy(history * to, const history * from);
void pyggml_history_free(history * h);
void pyggml_history_push(history * h, const int32_t * tokens, int32_t n);

// Whether penalties or DRY may change a logit.
bool pyggml_history_matters(const history * h, const struct pyggml_sampling * o);

// Repetition, frequency and presence penalties, then DRY, in place on a row of n.
void pyggml_history_apply(history * h, const struct pyggml_sampling * o, float * row, int32_t n);
#endif
