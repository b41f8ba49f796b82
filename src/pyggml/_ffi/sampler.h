// From a row of logits to a token in one call: llama.cpp's sampler chain. Tested in tests/sampling.
#ifndef PYGGML_SAMPLER_H
#define PYGGML_SAMPLER_H
#include <stddef.h>
#include <stdint.h>

// The options of pyggml.sampling.SamplingParams, checked there. What is off does nothing at its neutral value.
struct pyggml_sampling {
    double temperature;
    double dynatemp_range, dynatemp_exponent;
    double top_n_sigma, typical_p, top_p, min_p;
    double xtc_probability, xtc_threshold;
    double mirostat_tau, mirostat_eta;
    double dry_multiplier, dry_base;
    float repeat_penalty, frequency_penalty, presence_penalty;
    int32_t top_k, min_keep, mirostat;
    int32_t repeat_last_n, dry_penalty_last_n; // 0: none; never negative here
    int32_t dry_allowed_length;
    // n_bias pairs; ids are not negative.
    const int32_t * bias_ids;
    const float * biases;
    int32_t n_bias;
    // n_breakers sequences of tokens that DRY does not look across, sorted by their first token, heads[i]. The others
    // of sequence i are tails[tail_at[i]] to tails[tail_at[i + 1]].
    const int32_t * heads;
    const int32_t * tail_at;
    const int32_t * tails;
    int32_t n_breakers;
    // State and increment of PCG64, high words first.
    uint64_t state[2], increment[2];
};

// Instead of a token or a count:
enum {
    PYGGML_SAMPLE_NAN = -1,      // a logit that counts is NaN
    PYGGML_SAMPLE_INFINITE = -2, // the largest logit is infinite
    PYGGML_SAMPLE_NOTHING = -3,  // mask and bias leave no token
    PYGGML_SAMPLE_MEMORY = -4,
};

typedef struct pyggml_sampler pyggml_sampler;

// NULL without memory. The arrays that the options point to must outlive the sampler; the options need not.
pyggml_sampler * pyggml_sampler_new(const struct pyggml_sampling * options);
// A sampler in the same state: recent tokens, random numbers, mirostat. NULL without memory.
pyggml_sampler * pyggml_sampler_clone(const pyggml_sampler * s);
void pyggml_sampler_free(pyggml_sampler * s);

// Remember tokens, the latest last.
void pyggml_sampler_accept(pyggml_sampler * s, const int32_t * tokens, int32_t n);
void pyggml_sampler_accept_one(pyggml_sampler * s, int32_t token);

// Draw a token. mask: NULL, or (n + 31) / 32 words whose bits are the allowed tokens. The logits are only read.
// Returns the token, or one of the codes above.
int32_t pyggml_sampler_sample(pyggml_sampler * s, const float * logits, int32_t n, const int32_t * mask);

// What the next call of sample would draw from: ids and probs have room for n. Changes nothing that is remembered.
// Returns how many tokens are left, in no order, or one of the codes above.
int32_t pyggml_sampler_distribution(pyggml_sampler * s, const float * logits, int32_t n, const int32_t * mask,
                                    int32_t * ids, double * probs);

// ln(softmax(logits)) in double: of `token` (0 to n - 1) into *chosen, of the n_top most likely into values, best first
// (ties: lower id first). Returns how many of top there are (-inf does not count), or one of the codes above.
int32_t pyggml_logprobs(const float * logits, int32_t n, int32_t token, int32_t n_top, double * chosen, int32_t * ids,
                        double * values);
#endif
