#include "sampler_chain.h"

#include <float.h>
#include <math.h>

enum { MIROSTAT_TOP = 100 }; // Mirostat 1 estimates the shape of the distribution from this many

static const double COLDEST = 1e-30, HOTTEST = 1e30; // beyond these a float cannot tell the difference

bool pyggml_survey(pyggml_sampler * s, candidates * c) {
    const bool numbers = s->passes->survey(c->x, c->n, s->groups, s->chunks);
    c->max = s->chunks[0];
    for (int32_t i = 1; i < row_chunks(c->n); i++) {
        c->max = s->chunks[i] > c->max ? s->chunks[i] : c->max;
    }
    return numbers;
}

// Indices of the candidates with at least this logit go to s->keys; -inf never counts.
static int32_t find(pyggml_sampler * s, const candidates * c, float limit) {
    return s->passes->find(c->x, c->n, limit > -FLT_MAX ? limit : -FLT_MAX, s->chunks, s->keys);
}

// The keys of the candidates with at least this logit go to s->keys.
static int32_t gather(pyggml_sampler * s, const candidates * c, float limit) {
    const int32_t m = find(s, c, limit);
    for (int32_t i = 0; i < m; i++) {
        const int32_t at = (int32_t) s->keys[i];
        s->keys[i] = row_key(c->x[at], token_at(c, at));
    }
    return m;
}

static float bound(pyggml_sampler * s, const candidates * c, int32_t k) {
    return pyggml_row_bound(s->groups, s->chunks, c->n, k, s->keys);
}

// The first m of s->keys are the candidates now.
static void keep_keys(pyggml_sampler * s, candidates * c, int32_t m) {
    for (int32_t i = 0; i < m; i++) {
        s->ids[i] = row_key_id(s->keys[i]);
        s->values[i] = c->row[s->ids[i]];
    }
    c->x = s->values;
    c->ids = s->ids;
    c->n = m;
    pyggml_survey(s, c);
}

// A limit that more than k candidates reach in all likelihood: by a sample of them, and three standard deviations more.
static float estimate(pyggml_sampler * s, const candidates * c, int32_t k) {
    enum { SAMPLE = 1024 };
    const double expected = (double) k * SAMPLE / c->n;
    const double rank = expected + 3.0 * sqrt(expected) + 3.0;
    if (c->n < 4 * SAMPLE || rank >= SAMPLE) {
        return -INFINITY;
    }
    const int32_t step = c->n / SAMPLE;
    for (int32_t i = 0; i < SAMPLE; i++) {
        s->keys[i] = row_key(c->x[i * step], i);
    }
    pyggml_keys_top(s->keys, SAMPLE, (int32_t) rank);
    float limit = INFINITY;
    for (int32_t i = 0; i < (int32_t) rank; i++) {
        limit = fminf(limit, c->x[row_key_id(s->keys[i]) * step]);
    }
    return limit;
}

static void keep_top(pyggml_sampler * s, candidates * c, int32_t k) {
    if (k >= c->n) {
        return;
    }
    float limit = bound(s, c, k);
    if (limit == -INFINITY) {
        limit = estimate(s, c, k);
    }
    int32_t m = gather(s, c, limit);
    if (m < k) {
        m = gather(s, c, -INFINITY);
    }
    k = k < m ? k : m; // fewer are above -inf
    pyggml_keys_top(s->keys, m, k);
    keep_keys(s, c, k);
}

// Keep the candidates with at least this logit, and no fewer than `least`.
static void keep_above(pyggml_sampler * s, candidates * c, float limit, int32_t least) {
    const int32_t m = find(s, c, limit);
    if (m < least) {
        keep_top(s, c, least);
        return;
    }
    for (int32_t i = 0; i < m; i++) { // in place: at >= i
        const int32_t at = (int32_t) s->keys[i];
        s->ids[i] = token_at(c, at);
        s->values[i] = c->x[at];
    }
    c->x = s->values;
    c->ids = s->ids;
    c->n = m;
    pyggml_survey(s, c);
}

static void top_n_sigma(pyggml_sampler * s, candidates * c) {
    double mean, deviation;
    s->passes->spread(c->x, c->n, c->max, &mean, &deviation);
    const double limit = (double) c->max - s->options.top_n_sigma * deviation;
    if (isfinite(limit)) {
        keep_above(s, c, (float) limit, 1);
    }
}

// Keep the fewest candidates that together have this share, and no fewer than `least`: the likeliest or, given what
// (logit - max) is expected to be, those nearest to that.
static void keep_share(pyggml_sampler * s, candidates * c, const double * expected, double total, float share,
                       int32_t least) {
    const row_shares shares = {s->passes, c->row, c->max, total};
    int32_t n_keys;
    // They are nearly always few: look at the likely tokens first, then at more.
    for (float depth = c->n > 256 ? 8.0f : INFINITY;; depth = depth < 14.0f ? depth + 2.0f : INFINITY) {
        const int32_t m = find(s, c, c->max - depth);
        n_keys = 0;
        for (int32_t i = 0; i < m; i++) {
            const int32_t at = (int32_t) s->keys[i];
            double odd = -(double) c->x[at];
            if (expected != NULL) {
                odd = fabs(*expected - ((double) c->x[at] - (double) c->max));
                if (odd > *expected + (double) depth) {
                    continue; // tokens that were not looked at may be nearer
                }
            }
            s->keys[n_keys++] = row_key((float) -odd, token_at(c, at));
        }
        const double sum = s->passes->weigh_keys(s->keys, n_keys, c->row, c->max);
        if (depth == INFINITY || (n_keys >= least && (float) (sum / total) >= share)) {
            break;
        }
    }
    keep_keys(s, c, pyggml_keys_share(s->keys, n_keys, &shares, share, least));
}

static void typical(pyggml_sampler * s, candidates * c) {
    const row_sums sums = s->passes->sums(c->x, c->n, c->max, 1.0f);
    const double expected = sums.moment / sums.weight; // surprise minus entropy is expected - (logit - max)
    const float beyond = nextafterf((float) s->options.typical_p, 2.0f); // the sum has to exceed typical_p
    keep_share(s, c, &expected, sums.weight, beyond, s->options.min_keep);
}

static void top_p(pyggml_sampler * s, candidates * c) {
    const double total = s->passes->weights(c->x, c->n, c->max, 1.0f, s->chunk_weights);
    const int32_t least = s->options.min_keep > 0 ? s->options.min_keep : 1;
    keep_share(s, c, NULL, total, (float) s->options.top_p, least);
}

// XTC (p-e-w 2024): now and then, of the tokens above the threshold keep only the least likely one.
static void xtc(pyggml_sampler * s, candidates * c) {
    const struct pyggml_sampling * o = &s->options;
    if (c->n < 2 || pyggml_uniform(s) >= o->xtc_probability) {
        return;
    }
    const row_sums sums = s->passes->sums(c->x, c->n, c->max, 1.0f);
    const double limit = (double) c->max + log(o->xtc_threshold * sums.weight) - 1e-3; // decided exactly below
    const int32_t m = find(s, c, limit > -FLT_MAX ? (float) limit : -FLT_MAX);
    int32_t likely = 0, last = -1;
    uint64_t least = UINT64_MAX;
    for (int32_t i = 0; i < m; i++) {
        const int32_t at = (int32_t) s->keys[i];
        if ((float) (exp((double) c->x[at] - (double) c->max) / sums.weight) >= (float) o->xtc_threshold) {
            s->keys[likely++] = (uint64_t) at;
            const uint64_t key = row_key(c->x[at], token_at(c, at));
            if (key < least) {
                least = key;
                last = at;
            }
        }
    }
    if (likely < 2 || sums.finite - (likely - 1) < o->min_keep) {
        return;
    }
    int32_t kept = 0, gone = 0;
    for (int32_t i = 0; i < c->n; i++) {
        if (gone < likely && (uint64_t) i == s->keys[gone]) {
            gone++;
            if (i != last) {
                continue;
            }
        }
        s->ids[kept] = token_at(c, i);
        s->values[kept++] = c->x[i];
    }
    c->x = s->values;
    c->ids = s->ids;
    c->n = kept;
    pyggml_survey(s, c);
}

// 1 / temperature. Dynamic temperature (Zhang et al. 2024, "EDT"): by the entropy of what is left, as a share of the
// largest it could be.
static float scale_of(pyggml_sampler * s, const candidates * c) {
    const struct pyggml_sampling * o = &s->options;
    double temperature = o->temperature;
    if (o->dynatemp_range > 0.0) {
        const row_sums sums = s->passes->sums(c->x, c->n, c->max, 1.0f);
        const double low = fmax(0.0, temperature - o->dynatemp_range), high = temperature + o->dynatemp_range;
        const double entropy = fmax(0.0, log(sums.weight) - sums.moment / sums.weight);
        const double share = sums.finite > 1 ? fmin(1.0, entropy / log(sums.finite)) : 0.0;
        temperature = low + (high - low) * pow(share, o->dynatemp_exponent);
    }
    return (float) (1.0 / fmin(fmax(temperature, COLDEST), HOTTEST));
}

// Mirostat 1 (Basu et al. 2021): fit Zipf's law to the likeliest tokens, and keep as many as surprise by mu on average.
static int32_t mirostat_top(pyggml_sampler * s, const candidates * c, float scale) {
    int32_t m = gather(s, c, bound(s, c, MIROSTAT_TOP));
    const int32_t top = m < MIROSTAT_TOP ? m : MIROSTAT_TOP;
    pyggml_keys_top(s->keys, m, top);
    pyggml_keys_sort(s->keys, top);
    double products = 0.0, squares = 0.0;
    for (int32_t i = 0; i + 1 < top; i++) {
        const double step = log((i + 2.0) / (i + 1.0));
        const double here = c->row[row_key_id(s->keys[i])], next = c->row[row_key_id(s->keys[i + 1])];
        products += step * (here - next) * (double) scale;
        squares += step * step;
    }
    const double exponent = products / squares, excess = exponent - 1.0;
    const double k = pow(excess * exp2(s->mu) / (1.0 - pow(c->n, -excess)), 1.0 / exponent);
    return k >= 1.0 ? (k < c->n ? (int32_t) k : c->n) : 1; // NaN, from one candidate or a flat row, is 1 too
}

static float mirostat(pyggml_sampler * s, candidates * c) {
    const float scale = scale_of(s, c);
    if (s->options.mirostat == 1) {
        keep_top(s, c, mirostat_top(s, c, scale));
    } else { // Mirostat 2: keep what surprises by no more than mu
        const double total = s->passes->weights(c->x, c->n, c->max, scale, s->chunk_weights);
        keep_above(s, c, (float) ((double) c->max + (log(total) - s->mu * log(2.0)) / (double) scale), 1);
    }
    return scale;
}

float pyggml_truncate(pyggml_sampler * s, candidates * c) {
    const struct pyggml_sampling * o = &s->options;
    if (o->mirostat != 0) {
        return mirostat(s, c);
    }
    if (o->top_n_sigma > 0.0) {
        top_n_sigma(s, c);
    }
    if (o->top_k > 0) {
        keep_top(s, c, o->top_k);
    }
    if (o->typical_p < 1.0) {
        typical(s, c);
    }
    if (o->top_p < 1.0) {
        top_p(s, c);
    }
    if (o->min_p > 0.0) {
        keep_above(s, c, (float) ((double) c->max + log(o->min_p)), o->min_keep);
    }
    if (o->xtc_probability > 0.0 && o->xtc_threshold <= 0.5) {
        xtc(s, c);
    }
    return scale_of(s, c);
}
