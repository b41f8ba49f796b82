#include "helpers.h"

#include <dlfcn.h>
#include <math.h>
#include <string.h>

int pyggml_bind(const char * path, const char * const * names, void ** slots, int n) {
    void * handle = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    if (handle == NULL) {
        return -1;
    }
    int missing = 0;
    for (int i = 0; i < n; i++) {
        slots[i] = dlsym(handle, names[i]);
        missing += slots[i] == NULL;
    }
    return missing; // the handle stays open on purpose: the pointers must stay valid
}

enum { BLOCK = 256 }; // loops of constant length are vectorized

static const uint16_t MINUS_INF_F16 = 0xFC00;

// 0 where lo <= p[j] <= hi, else -inf.
static void fill_half(uint16_t * restrict dst, const int32_t * restrict p, int n, int32_t lo, int32_t hi) {
    if (n == BLOCK) {
        for (int j = 0; j < BLOCK; j++) {
            dst[j] = (uint16_t) (((p[j] >= lo) & (p[j] <= hi)) - 1) & MINUS_INF_F16;
        }
        return;
    }
    for (int j = 0; j < n; j++) {
        dst[j] = p[j] >= lo && p[j] <= hi ? 0 : MINUS_INF_F16;
    }
}

static void fill_single(float * restrict dst, const int32_t * restrict p, int n, int32_t lo, int32_t hi) {
    if (n == BLOCK) {
        for (int j = 0; j < BLOCK; j++) {
            dst[j] = (p[j] >= lo) & (p[j] <= hi) ? 0.0f : -INFINITY;
        }
        return;
    }
    for (int j = 0; j < n; j++) {
        dst[j] = p[j] >= lo && p[j] <= hi ? 0.0f : -INFINITY;
    }
}

// The positions of the cells that belong to the sequence; -1 for the others.
static void members(int32_t * restrict p, const int32_t * restrict pos, const uint64_t * restrict seqs, int n,
                    int32_t seq) {
    if (n == BLOCK) {
        for (int j = 0; j < BLOCK; j++) {
            p[j] = pos[j] | ((int32_t) (seqs[j] >> seq & 1) - 1);
        }
        return;
    }
    for (int j = 0; j < n; j++) {
        p[j] = seqs[j] >> seq & 1 ? pos[j] : -1;
    }
}

// Rows begin to end, all of one sequence.
static void fill_rows(void * dst, bool half, int n_cells, const int32_t * cell_pos, const uint64_t * cell_seq, int begin,
                      int end, const int32_t * pos, int32_t seq, const uint8_t * causal, int32_t window,
                      int32_t chunk) {
    int32_t p[BLOCK];
    for (int j = 0; j < n_cells; j += BLOCK) {
        int n = n_cells - j < BLOCK ? n_cells - j : BLOCK;
        members(p, cell_pos + j, cell_seq + j, n, seq);
        for (int i = begin; i < end; i++) {
            int32_t lo = window > 0 && pos[i] >= window ? pos[i] - window + 1 : 0;
            int32_t first = chunk > 0 ? pos[i] - pos[i] % chunk : 0;
            lo = first > lo ? first : lo;
            int32_t hi = causal == NULL || causal[i] ? pos[i] : INT32_MAX;
            size_t at = (size_t) i * n_cells + j;
            if (half) {
                fill_half((uint16_t *) dst + at, p, n, lo, hi);
            } else {
                fill_single((float *) dst + at, p, n, lo, hi);
            }
        }
    }
}

void pyggml_fill_mask(void * dst, bool half, int n_cells, const int32_t * cell_pos, const uint64_t * cell_seq,
                      int n_rows, int n_pad, const int32_t * pos, const int32_t * seq, const uint8_t * causal,
                      int32_t window, int32_t chunk) {
    for (int begin = 0, end; begin < n_rows; begin = end) {
        for (end = begin + 1; end < n_rows && seq[end] == seq[begin]; end++) {
        }
        fill_rows(dst, half, n_cells, cell_pos, cell_seq, begin, end, pos, seq[begin], causal, window, chunk);
    }
    size_t n = (size_t) n_pad * n_cells;
    for (size_t at = (size_t) n_rows * n_cells; at < n; at++) {
        if (half) {
            ((uint16_t *) dst)[at] = MINUS_INF_F16;
        } else {
            ((float *) dst)[at] = -INFINITY;
        }
    }
}

int32_t pyggml_argmax(const float * x, int32_t n) {
    int32_t best = 0;
    bool nan = n <= 0;
    for (int32_t i = 0; i < n; i++) {
        nan |= isnan(x[i]);
        if (x[i] > x[best]) {
            best = i;
        }
    }
    return nan ? -1 : best;
}

// The heap's root is the worst of the kept entries: smallest value, then highest index.
static bool worse(const float * values, const int32_t * ids, int32_t a, int32_t b) {
    return values[a] < values[b] || (values[a] == values[b] && ids[a] > ids[b]);
}

static void swap(float * values, int32_t * ids, int32_t a, int32_t b) {
    float v = values[a];
    values[a] = values[b];
    values[b] = v;
    int32_t i = ids[a];
    ids[a] = ids[b];
    ids[b] = i;
}

static void sift_down(float * values, int32_t * ids, int32_t root, int32_t size) {
    for (;;) {
        int32_t child = 2 * root + 1;
        if (child >= size) {
            return;
        }
        if (child + 1 < size && worse(values, ids, child + 1, child)) {
            child++;
        }
        if (!worse(values, ids, child, root)) {
            return;
        }
        swap(values, ids, child, root);
        root = child;
    }
}

int32_t pyggml_top_k(const float * x, int32_t n, int32_t k, int32_t * ids, float * values) {
    if (k > n) {
        k = n;
    }
    if (k <= 0) {
        return 0;
    }
    bool nan = false;
    for (int32_t i = 0; i < k; i++) {
        ids[i] = i;
        values[i] = x[i];
        nan |= isnan(x[i]);
    }
    for (int32_t i = k / 2 - 1; i >= 0; i--) {
        sift_down(values, ids, i, k);
    }
    for (int32_t i = k; i < n; i++) {
        nan |= isnan(x[i]);
        if (x[i] > values[0]) { // a tie keeps the lower index, which came first
            values[0] = x[i];
            ids[0] = i;
            sift_down(values, ids, 0, k);
        }
    }
    if (nan) {
        return -1;
    }
    for (int32_t size = k - 1; size > 0; size--) { // heap sort: the worst goes to the end
        swap(values, ids, 0, size);
        sift_down(values, ids, 0, size);
    }
    return k;
}

double pyggml_log_sum_exp(const float * x, int32_t n) {
    if (n <= 0) {
        return -INFINITY;
    }
    float max = x[0];
    for (int32_t i = 1; i < n; i++) {
        max = x[i] > max ? x[i] : max;
    }
    if (isinf(max)) {
        return max;
    }
    double sum = 0.0;
    for (int32_t i = 0; i < n; i++) {
        sum += expf(x[i] - max);
    }
    return (double) max + log(sum);
}

void pyggml_penalize(float * x, int32_t n, const int32_t * ids, const int32_t * counts, int32_t n_ids,
                     float repeat, float frequency, float presence) {
    for (int32_t i = 0; i < n_ids; i++) {
        if (ids[i] < 0 || ids[i] >= n) {
            continue;
        }
        float * logit = &x[ids[i]];
        *logit = *logit > 0 ? *logit / repeat : *logit * repeat;
        *logit -= (float) counts[i] * frequency + (counts[i] > 0 ? presence : 0.0f);
    }
}
