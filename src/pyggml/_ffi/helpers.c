#define _DEFAULT_SOURCE // madvise
#include "helpers.h"

#include <dlfcn.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <math.h>
#include <string.h>
#include <sys/mman.h>

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

size_t pyggml_use_huge_pages(void * base, size_t n) {
#ifdef MADV_HUGEPAGE
    const uintptr_t page = (uintptr_t) 2 << 20;
    const uintptr_t from = ((uintptr_t) base + page - 1) / page * page, to = ((uintptr_t) base + n) / page * page;
    if (from < to && madvise((void *) from, to - from, MADV_HUGEPAGE) == 0) {
        return to - from;
    }
#else
    (void) base, (void) n;
#endif
    return 0;
}

void pyggml_trim_memory(void) {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
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

static void nothing_half(uint16_t * dst, int n) {
    if (n == BLOCK) {
        for (int j = 0; j < BLOCK; j++) {
            dst[j] = MINUS_INF_F16;
        }
        return;
    }
    for (int j = 0; j < n; j++) {
        dst[j] = MINUS_INF_F16;
    }
}

static void nothing_single(float * dst, int n) {
    if (n == BLOCK) {
        for (int j = 0; j < BLOCK; j++) {
            dst[j] = -INFINITY;
        }
        return;
    }
    for (int j = 0; j < n; j++) {
        dst[j] = -INFINITY;
    }
}

// One row, the columns from j on; p: the cells' positions, -1 for those of other sequences.
static void fill_block(void * dst, bool half, size_t at, const int32_t * p, int n, int32_t pos, bool causal,
                       int32_t window, int32_t chunk) {
    int32_t lo = window > 0 && pos >= window ? pos - window + 1 : 0;
    int32_t first = chunk > 0 ? pos - pos % chunk : 0;
    lo = first > lo ? first : lo;
    int32_t hi = causal ? pos : INT32_MAX;
    if (half) {
        fill_half((uint16_t *) dst + at, p, n, lo, hi);
    } else {
        fill_single((float *) dst + at, p, n, lo, hi);
    }
}

static uint64_t all_of(const uint64_t * seqs, int n) {
    uint64_t found = 0;
    for (int j = 0; j < n; j++) {
        found |= seqs[j];
    }
    return found;
}

void pyggml_fill_mask(void * dst, bool half, int n_cells, const int32_t * cell_pos, const uint64_t * cell_seq,
                      int n_rows, int n_pad, const int32_t * pos, const int32_t * seq, const uint8_t * causal,
                      int32_t window, int32_t chunk) {
    int32_t p[BLOCK];
    for (int j = 0; j < n_cells; j += BLOCK) {
        int n = n_cells - j < BLOCK ? n_cells - j : BLOCK;
        uint64_t here = all_of(cell_seq + j, n); // most blocks belong to one sequence or a few
        int32_t known = -1;
        for (int i = 0; i < n_pad; i++) {
            size_t at = (size_t) i * n_cells + j;
            if (i >= n_rows || !(here >> seq[i] & 1)) {
                if (half) {
                    nothing_half((uint16_t *) dst + at, n);
                } else {
                    nothing_single((float *) dst + at, n);
                }
                continue;
            }
            if (seq[i] != known) {
                known = seq[i];
                members(p, cell_pos + j, cell_seq + j, n, known);
            }
            fill_block(dst, half, at, p, n, pos[i], causal == NULL || causal[i], window, chunk);
        }
    }
}
