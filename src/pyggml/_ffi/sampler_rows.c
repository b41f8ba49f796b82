#include "sampler_rows.h"

#include <math.h>
#include <stddef.h>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi" // vectors are only passed to functions that are always inlined
#endif

typedef float lanes __attribute__((vector_size(32)));
typedef int32_t mask_lanes __attribute__((vector_size(32)));
typedef float half_lanes __attribute__((vector_size(16)));
typedef double wide __attribute__((vector_size(32)));
typedef int64_t mask_wide __attribute__((vector_size(32)));

#define PASS(name) base_##name
#define PASS_TARGET
#include "sampler_passes.h"
#undef PASS
#undef PASS_TARGET

#if defined(__x86_64__)
#define PASS(name) avx2_##name
#define PASS_TARGET __attribute__((target("avx2")))
#include "sampler_passes.h"
#undef PASS
#undef PASS_TARGET
#endif

const row_passes * pyggml_row_passes(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        return &avx2_passes;
    }
#endif
    return &base_passes;
}

void pyggml_keys_sort(uint64_t * keys, int32_t n) {
    for (int32_t i = 1; i < n; i++) {
        const uint64_t key = keys[i];
        int32_t j = i;
        for (; j > 0 && keys[j - 1] < key; j--) {
            keys[j] = keys[j - 1];
        }
        keys[j] = key;
    }
}

static void swap(uint64_t * a, uint64_t * b) {
    const uint64_t t = *a;
    *a = *b;
    *b = t;
}

// Choose a key as pivot and move all larger ones before it, all smaller ones behind; returns where it is then. Keys
// differ in their ids. The pivot is the median of three keys from scattered places, so that no order of the input,
// made up or not, is slow.
static int32_t partition(uint64_t * keys, int32_t n, uint32_t * state) {
    uint32_t at[3];
    for (int i = 0; i < 3; i++) {
        *state = *state * 1664525u + 1013904223u; // Numerical Recipes' generator
        at[i] = (uint32_t) (((uint64_t) *state * (uint32_t) n) >> 32);
    }
    uint64_t * a = &keys[at[0]], * b = &keys[at[1]], * c = &keys[at[2]];
    uint64_t * median = *a > *b ? (*b > *c ? b : *a > *c ? c : a) : (*a > *c ? a : *b > *c ? c : b);
    swap(median, &keys[n - 1]);
    const uint64_t pivot = keys[n - 1];
    int32_t larger = 0;
    for (int32_t i = 0; i < n - 1; i++) { // no branch on the data
        const uint64_t key = keys[i];
        keys[i] = keys[larger];
        keys[larger] = key;
        larger += key > pivot;
    }
    swap(&keys[larger], &keys[n - 1]);
    return larger;
}

void pyggml_keys_top(uint64_t * keys, int32_t n, int32_t k) {
    uint32_t state = 1;
    while (n > 16 && k > 0 && k < n) {
        const int32_t larger = partition(keys, n, &state);
        if (larger >= k) {
            n = larger;
        } else {
            keys += larger + 1;
            n -= larger + 1;
            k -= larger + 1;
        }
    }
    if (k > 0 && k < n) {
        pyggml_keys_sort(keys, n);
    }
}

static double share_of(const row_shares * s, uint64_t key) {
    return (double) s->passes->weigh(s->row[row_key_id(key)], s->max, 1.0f) / s->total;
}

int32_t pyggml_keys_share(uint64_t * keys, int32_t n, const row_shares * shares, float share, int32_t least) {
    uint32_t state = 1;
    int32_t kept = 0;
    double sum = 0.0;
    while (n - kept > 16) {
        uint64_t * rest = keys + kept;
        const int32_t larger = partition(rest, n - kept, &state);
        const double more = shares->passes->weigh_keys(rest, larger, shares->row, shares->max) / shares->total;
        if ((float) (sum + more) >= share && kept + larger >= least) {
            n = kept + larger;
        } else {
            sum += more + share_of(shares, rest[larger]);
            kept += larger + 1;
            if ((float) sum >= share && kept >= least) {
                return kept;
            }
        }
    }
    pyggml_keys_sort(keys + kept, n - kept);
    while (kept < n) {
        sum += share_of(shares, keys[kept++]);
        if ((float) sum >= share && kept >= least) {
            break;
        }
    }
    return kept;
}

float pyggml_row_bound(const float * groups, const float * chunks, int32_t n, int32_t k, uint64_t * keys) {
    // The maxima of k disjoint groups are k values, so the k-th largest value is no less than the k-th largest maximum.
    // Four times as many groups as needed make the bound tight: few other values lie above it.
    const int32_t n_chunks = row_chunks(n);
    const bool coarse = k <= n_chunks / 4;
    const float * maxima = coarse ? chunks : groups;
    const int32_t n_maxima = coarse ? n_chunks : n_chunks * ROW_GROUPS;
    if (k <= 0 || k > n_maxima) {
        return -INFINITY;
    }
    for (int32_t i = 0; i < n_maxima; i++) {
        keys[i] = row_key(maxima[i], i);
    }
    pyggml_keys_top(keys, n_maxima, k);
    float bound = INFINITY;
    for (int32_t i = 0; i < k; i++) {
        const float value = maxima[row_key_id(keys[i])];
        bound = value < bound ? value : bound;
    }
    return bound;
}
