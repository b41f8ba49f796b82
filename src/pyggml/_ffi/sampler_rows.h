// Passes over rows of logits. Internal to the sampler: sampler_rows.c compiles the vector part twice on x86 (for any
// machine and for AVX2) and picks one when it runs; both give the same bits.
#ifndef PYGGML_SAMPLER_ROWS_H
#define PYGGML_SAMPLER_ROWS_H
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
    ROW_LANES = 8,     // values of one vector
    ROW_GROUPS = 16,   // largest values kept per chunk: of every 16th value of it
    ROW_CHUNK = 1024,  // values whose sum is kept in float, and that are skipped together
};

// What one pass over a row finds out.
typedef struct {
    double weight;   // sum of exp((x - max) * scale)
    double moment;   // sum of exp((x - max) * scale) * (x - max) * scale
    int32_t finite;  // how many are above -inf
} row_sums;

typedef struct {
    // Largest values: ROW_GROUPS for each chunk into groups, one for each into chunks. False when any value is NaN.
    bool (*survey)(const float * x, int32_t n, float * groups, float * chunks);
    // The sum of exp((x - max) * scale), and that of each chunk.
    double (*weights)(const float * x, int32_t n, float max, float scale, double * chunk_weights);
    row_sums (*sums)(const float * x, int32_t n, float max, float scale);
    // Mean and standard deviation of (x - max) over the values above -inf.
    void (*spread)(const float * x, int32_t n, float max, double * mean, double * deviation);
    // The indices of all x[i] >= limit, ascending; chunks as the survey left it. Returns how many.
    int32_t (*find)(const float * x, int32_t n, float limit, const float * chunks, uint64_t * found);
    // out[i] = x[i] where bit i of the mask is set, else -inf. Returns whether any bit is set.
    bool (*mask)(const float * x, int32_t n, const int32_t * words, float * out);
    // ln(sum(exp(x - max))), in double.
    double (*log_sum)(const float * x, int32_t n, float max);
    // exp((x - max) * scale), the same bits as inside sums.
    float (*weigh)(float x, float max, float scale);
    // The sum of exp(row[id] - max) over the ids in keys.
    double (*weigh_keys)(const uint64_t * keys, int32_t n, const float * row, float max);
} row_passes;

const row_passes * pyggml_row_passes(void);

static inline int32_t row_chunks(int32_t n) {
    return (n + ROW_CHUNK - 1) / ROW_CHUNK;
}

// A candidate in one number: larger is better. Larger values first; among equal values (-0 is 0) the lower id.
static inline uint64_t row_key(float value, int32_t id) {
    value += 0.0f; // -0 becomes 0
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits ^= bits >> 31 ? 0xFFFFFFFFu : 0x80000000u;
    return (uint64_t) bits << 32 | (uint32_t) ~id;
}

static inline int32_t row_key_id(uint64_t key) {
    return (int32_t) ~(uint32_t) key;
}

// Sort keys descending; for few of them.
void pyggml_keys_sort(uint64_t * keys, int32_t n);

// Move the k largest keys to the front, in no order. k is 0 to n.
void pyggml_keys_top(uint64_t * keys, int32_t n, int32_t k);

// Weights of the ids in keys: exp(row[id] - max), as a share of total.
typedef struct {
    const row_passes * passes;
    const float * row;
    float max;
    double total;
} row_shares;

// Move the fewest largest keys to the front, in no order, whose shares sum to at least `share`, and at least `least` of
// them. Returns how many these are. Sums that differ by less than a float can tell are equal.
int32_t pyggml_keys_share(uint64_t * keys, int32_t n, const row_shares * shares, float share, int32_t least);

// A lower bound of the k-th largest value of a row of n, from its survey; -inf when the survey says nothing about it.
// keys: scratch for ROW_GROUPS * row_chunks(n) of them.
float pyggml_row_bound(const float * groups, const float * chunks, int32_t n, int32_t k, uint64_t * keys);
#endif
