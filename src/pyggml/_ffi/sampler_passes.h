// The vector passes of sampler_rows.h, as a template: include with PASS(name) and PASS_TARGET defined.
// No #include guard: sampler_rows.c includes it once per instruction set. Sums always run in the same eight lanes and
// nothing is contracted to fused operations, so that every machine draws the same token from the same seed.

#define PASS_INLINE static inline __attribute__((always_inline)) PASS_TARGET

PASS_INLINE lanes PASS(load)(const float * x) {
    lanes v;
    memcpy(&v, x, sizeof v);
    return v;
}

// The last n < ROW_LANES values; the other lanes hold `rest`.
PASS_INLINE lanes PASS(load_tail)(const float * x, int32_t n, float rest) {
    float v[ROW_LANES];
    for (int32_t i = 0; i < ROW_LANES; i++) {
        v[i] = i < n ? x[i] : rest;
    }
    return PASS(load)(v);
}

PASS_INLINE lanes PASS(select)(mask_lanes mask, lanes yes, lanes no) {
    return (lanes) ((mask & (mask_lanes) yes) | (~mask & (mask_lanes) no));
}

PASS_INLINE bool PASS(any)(mask_lanes mask) {
    uint64_t words[sizeof mask / sizeof(uint64_t)];
    memcpy(words, &mask, sizeof mask);
    return (words[0] | words[1] | words[2] | words[3]) != 0;
}

// exp(t) for t <= 0, 0 below -87: 2^k * exp(r), |r| <= ln(2)/2, by a polynomial; wrong by 1e-7 of the value at most.
PASS_INLINE lanes PASS(exp)(lanes t) {
    const mask_lanes matters = t >= -87.0f;
    t = (lanes) ((mask_lanes) t & matters);
    const lanes shifted = t * 1.44269504f + 12582912.0f; // 1.5 * 2^23: k lands in the lowest bits
    const lanes k = shifted - 12582912.0f;
    const lanes r = (t - k * 0.693359375f) - k * -2.12194440e-4f;
    const lanes r2 = r * r; // by halves, so that one step need not wait for the other
    const lanes high = (r * 8.3334519073e-3f + 4.1665795894e-2f) + r2 * 1.3981999507e-3f;
    lanes p = (r * 1.6666665459e-1f + 5.0000001201e-1f) + r2 * high;
    p = (r + 1.0f) + r2 * p;
    p = (lanes) ((mask_lanes) p + ((mask_lanes) shifted << 23));
    return (lanes) ((mask_lanes) p & matters);
}

static PASS_TARGET float PASS(weigh)(float x, float max, float scale) {
    const lanes t = {(x - max) * scale};
    return PASS(exp)(t)[0];
}

static PASS_TARGET double PASS(weigh_keys)(const uint64_t * keys, int32_t n, const float * row, float max) {
    double sum = 0.0;
    for (int32_t start = 0; start < n; start += ROW_CHUNK) {
        const int32_t end = n - start < ROW_CHUNK ? n : start + ROW_CHUNK;
        lanes weight = {0};
        for (int32_t i = start; i < end; i += ROW_LANES) {
            float v[ROW_LANES];
            for (int32_t j = 0; j < ROW_LANES; j++) {
                v[j] = i + j < end ? row[row_key_id(keys[i + j])] : -INFINITY;
            }
            weight += PASS(exp)(PASS(load)(v) - max);
        }
        for (int32_t j = 0; j < ROW_LANES; j++) {
            sum += (double) weight[j];
        }
    }
    return sum;
}

static PASS_TARGET bool PASS(survey)(const float * x, int32_t n, float * groups, float * chunks) {
    const lanes low = (lanes) {0} - INFINITY;
    mask_lanes bad = {0};
    for (int32_t start = 0, c = 0; start < n; start += ROW_CHUNK, c++) {
        const int32_t end = n - start < ROW_CHUNK ? n : start + ROW_CHUNK;
        lanes a = low, b = low;
        int32_t i = start;
        for (; i + 2 * ROW_LANES <= end; i += 2 * ROW_LANES) {
            const lanes u = PASS(load)(x + i), v = PASS(load)(x + i + ROW_LANES);
            bad |= (u != u) | (v != v);
            a = PASS(select)(u > a, u, a);
            b = PASS(select)(v > b, v, b);
        }
        for (; i < end; i += ROW_LANES) {
            const lanes u = PASS(load_tail)(x + i, end - i, -INFINITY);
            bad |= u != u;
            a = PASS(select)(u > a, u, a);
        }
        memcpy(groups + c * ROW_GROUPS, &a, sizeof a);
        memcpy(groups + c * ROW_GROUPS + ROW_LANES, &b, sizeof b);
        a = PASS(select)(a > b, a, b);
        float max = a[0];
        for (int32_t j = 1; j < ROW_LANES; j++) {
            max = a[j] > max ? a[j] : max;
        }
        chunks[c] = max;
    }
    return !PASS(any)(bad);
}

PASS_INLINE row_sums PASS(sums_of)(const float * x, int32_t n, float max, float scale, double * chunk_weights,
                                   bool moments) {
    row_sums out = {0};
    for (int32_t start = 0, c = 0; start < n; start += ROW_CHUNK, c++) {
        const int32_t end = n - start < ROW_CHUNK ? n : start + ROW_CHUNK;
        lanes weight = {0}, moment = {0};
        mask_lanes finite = {0};
        for (int32_t i = start; i < end; i += ROW_LANES) {
            lanes v = i + ROW_LANES <= end ? PASS(load)(x + i) : PASS(load_tail)(x + i, end - i, -INFINITY);
            if (moments) {
                finite -= v > -INFINITY;
            }
            v = (v - max) * scale;
            const lanes w = PASS(exp)(v);
            weight += w;
            if (moments) {
                moment += PASS(select)(v > -INFINITY, w * v, (lanes) {0});
            }
        }
        double chunk = 0.0;
        for (int32_t j = 0; j < ROW_LANES; j++) {
            chunk += (double) weight[j];
            out.moment += (double) moment[j];
            out.finite += finite[j];
        }
        out.weight += chunk;
        if (chunk_weights != NULL) {
            chunk_weights[c] = chunk;
        }
    }
    return out;
}

static PASS_TARGET double PASS(weights)(const float * x, int32_t n, float max, float scale, double * chunk_weights) {
    return PASS(sums_of)(x, n, max, scale, chunk_weights, false).weight;
}

static PASS_TARGET row_sums PASS(sums)(const float * x, int32_t n, float max, float scale) {
    return PASS(sums_of)(x, n, max, scale, NULL, true);
}

static PASS_TARGET void PASS(spread)(const float * x, int32_t n, float max, double * mean, double * deviation) {
    double sum = 0.0, squares = 0.0, count = 0.0;
    for (int32_t start = 0; start < n; start += ROW_CHUNK) {
        const int32_t end = n - start < ROW_CHUNK ? n : start + ROW_CHUNK;
        lanes s = {0}, q = {0};
        mask_lanes finite = {0};
        for (int32_t i = start; i < end; i += ROW_LANES) {
            lanes v = i + ROW_LANES <= end ? PASS(load)(x + i) : PASS(load_tail)(x + i, end - i, -INFINITY);
            const mask_lanes ok = v > -INFINITY;
            v = (lanes) ((mask_lanes) (v - max) & ok);
            finite -= ok;
            s += v;
            q += v * v;
        }
        for (int32_t j = 0; j < ROW_LANES; j++) {
            sum += (double) s[j];
            squares += (double) q[j];
            count += (double) finite[j];
        }
    }
    *mean = sum / count;
    const double variance = squares / count - *mean * *mean;
    *deviation = variance > 0.0 ? sqrt(variance) : 0.0;
}

static PASS_TARGET int32_t PASS(find)(const float * x, int32_t n, float limit, const float * chunks, uint64_t * found) {
    int32_t m = 0;
    for (int32_t start = 0, c = 0; start < n; start += ROW_CHUNK, c++) {
        if (chunks[c] < limit) {
            continue;
        }
        const int32_t end = n - start < ROW_CHUNK ? n : start + ROW_CHUNK;
        for (int32_t i = start; i < end;) {
            const int32_t stop = end - i < 4 * ROW_LANES ? end : i + 4 * ROW_LANES;
            if (stop - i == 4 * ROW_LANES) {
                const mask_lanes a = (PASS(load)(x + i) >= limit) | (PASS(load)(x + i + ROW_LANES) >= limit);
                const mask_lanes b = (PASS(load)(x + i + 2 * ROW_LANES) >= limit)
                                   | (PASS(load)(x + i + 3 * ROW_LANES) >= limit);
                if (!PASS(any)(a | b)) {
                    i = stop;
                    continue;
                }
            }
            for (; i < stop; i++) {
                found[m] = (uint64_t) i; // there is room: at most i were found before
                m += x[i] >= limit;
            }
        }
    }
    return m;
}

static PASS_TARGET bool PASS(mask)(const float * x, int32_t n, const int32_t * words, float * out) {
    const mask_lanes bit = {1, 2, 4, 8, 16, 32, 64, 128};
    const lanes low = (lanes) {0} - INFINITY;
    uint32_t seen = 0;
    for (int32_t i = 0; i < n; i += 32) {
        const uint32_t word = (uint32_t) words[i / 32];
        if (n - i < 32) {
            for (int32_t j = 0; i + j < n; j++) {
                seen |= word & 1u << j;
                out[i + j] = word >> j & 1 ? x[i + j] : -INFINITY;
            }
            break;
        }
        seen |= word;
        for (int32_t j = 0; j < 32; j += ROW_LANES) {
            const mask_lanes off = (((mask_lanes) {0} + (int32_t) (word >> j & 0xFF)) & bit) == 0;
            const lanes v = PASS(select)(off, low, PASS(load)(x + i + j));
            memcpy(out + i + j, &v, sizeof v);
        }
    }
    return seen != 0;
}

// As exp() above, in double: the terms of the series up to r^12 / 12! are exact to 2e-16.
PASS_INLINE wide PASS(exp_wide)(wide t) {
    const mask_wide matters = t >= -700.0;
    t = (wide) ((mask_wide) t & matters);
    const wide shifted = t * 1.4426950408889634 + 6755399441055744.0; // 1.5 * 2^52
    const wide k = shifted - 6755399441055744.0;
    const wide r = (t - k * 0.693145751953125) - k * 1.42860682030941723212e-6;
    const wide r2 = r * r, r4 = r2 * r2;
    const wide low = (r + 1.0) + r2 * (r * (1.0 / 6) + 1.0 / 2);
    const wide middle = (r * (1.0 / 120) + 1.0 / 24) + r2 * (r * (1.0 / 5040) + 1.0 / 720);
    const wide high = (r * (1.0 / 362880) + 1.0 / 40320) + r2 * (r * (1.0 / 39916800) + 1.0 / 3628800);
    wide p = low + r4 * (middle + r4 * (high + r4 * (1.0 / 479001600)));
    p = (wide) ((mask_wide) p + ((mask_wide) shifted << 52));
    return (wide) ((mask_wide) p & matters);
}

static PASS_TARGET double PASS(log_sum)(const float * x, int32_t n, float max) {
    wide sum = {0};
    for (int32_t i = 0; i < n; i += 4) {
        half_lanes v = (half_lanes) {0} - INFINITY;
        for (int32_t j = 0; i + 4 > n && i + j < n; j++) {
            v[j] = x[i + j];
        }
        if (i + 4 <= n) {
            memcpy(&v, x + i, sizeof v);
        }
        sum += PASS(exp_wide)(__builtin_convertvector(v, wide) - (double) max);
    }
    return log(sum[0] + sum[1] + sum[2] + sum[3]);
}

static const row_passes PASS(passes) = {
    PASS(survey), PASS(weights), PASS(sums), PASS(spread), PASS(find), PASS(mask), PASS(log_sum), PASS(weigh),
    PASS(weigh_keys),
};

#undef PASS_INLINE
