#include "sampler.h"
#include "sampler_rows.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

int32_t pyggml_logprobs(const float * logits, int32_t n, int32_t token, int32_t n_top, double * chosen, int32_t * ids,
                        double * values) {
    const row_passes * passes = pyggml_row_passes();
    const int32_t chunks = row_chunks(n);
    const size_t n_keys = (size_t) chunks * ROW_GROUPS + (size_t) n;
    uint64_t * keys = malloc(8 * n_keys + 4 * (size_t) chunks * (ROW_GROUPS + 1));
    if (keys == NULL) {
        return PYGGML_SAMPLE_MEMORY;
    }
    float * groups = (float *) (keys + n_keys), * maxima = groups + (size_t) chunks * ROW_GROUPS;
    int32_t count = PYGGML_SAMPLE_NAN;
    if (passes->survey(logits, n, groups, maxima)) {
        float max = maxima[0];
        for (int32_t i = 1; i < chunks; i++) {
            max = maxima[i] > max ? maxima[i] : max;
        }
        count = PYGGML_SAMPLE_INFINITE;
        if (!isinf(max)) {
            const double sum = passes->log_sum(logits, n, max); // not added to max, which may be too large for it
            const float bound = pyggml_row_bound(groups, maxima, n, n_top, keys);
            const int32_t m = n_top > 0 ? passes->find(logits, n, fmaxf(bound, -FLT_MAX), maxima, keys) : 0;
            for (int32_t i = 0; i < m; i++) {
                keys[i] = row_key(logits[keys[i]], (int32_t) keys[i]);
            }
            count = n_top < m ? n_top : m;
            pyggml_keys_top(keys, m, count);
            pyggml_keys_sort(keys, count);
            for (int32_t i = 0; i < count; i++) {
                ids[i] = row_key_id(keys[i]);
                values[i] = ((double) logits[ids[i]] - (double) max) - sum;
            }
            *chosen = ((double) logits[token] - (double) max) - sum;
        }
    }
    free(keys);
    return count;
}
