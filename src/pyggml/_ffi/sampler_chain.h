// The candidates of one draw, and the chain that thins them out. Internal to the sampler.
#ifndef PYGGML_SAMPLER_CHAIN_H
#define PYGGML_SAMPLER_CHAIN_H
#include "sampler.h"
#include "sampler_history.h"
#include "sampler_rows.h"

__extension__ typedef unsigned __int128 wide_uint;

struct pyggml_sampler {
    struct pyggml_sampling options;
    const row_passes * passes;
    history recent;
    wide_uint state, increment;
    double mu; // Mirostat's limit of surprise, in bits
    // Scratch for rows of up to `room` values; pages that are not needed are never touched.
    int32_t room;
    void * scratch;
    uint64_t * keys;
    double * chunk_weights;
    float * row;    // logits after mask, bias and penalties, when they change any
    float * values; // candidates, when they are not the whole row
    int32_t * ids;
    float * groups, * chunks;
};

// The tokens that are still in the race. Nothing is sorted.
typedef struct {
    const float * row; // of the whole vocabulary
    const float * x;   // logits of the candidates
    const int32_t * ids; // their tokens; NULL: all, in order
    int32_t n;
    float max;
} candidates;

static inline int32_t token_at(const candidates * c, int32_t i) {
    return c->ids == NULL ? i : c->ids[i];
}

// Uniform in [0, 1).
double pyggml_uniform(pyggml_sampler * s);

// Find the largest logit of the candidates, and what makes the next passes fast. False when any logit is NaN.
bool pyggml_survey(pyggml_sampler * s, candidates * c);

// Keep the candidates that the options leave. Returns what to multiply their logits with: 1 / temperature.
float pyggml_truncate(pyggml_sampler * s, candidates * c);
#endif
