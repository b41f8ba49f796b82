#include "sampler.h"

#include "sampler_chain.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

pyggml_sampler * pyggml_sampler_new(const struct pyggml_sampling * options) {
    pyggml_sampler * s = calloc(1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    s->options = *options;
    s->passes = pyggml_row_passes();
    s->state = (wide_uint) options->state[0] << 64 | options->state[1];
    s->increment = (wide_uint) options->increment[0] << 64 | options->increment[1];
    s->mu = 2.0 * options->mirostat_tau;
    if (!pyggml_history_init(&s->recent, options)) {
        pyggml_sampler_free(s);
        return NULL;
    }
    return s;
}

pyggml_sampler * pyggml_sampler_clone(const pyggml_sampler * s) {
    pyggml_sampler * copy = pyggml_sampler_new(&s->options);
    if (copy == NULL) {
        return NULL;
    }
    copy->state = s->state;
    copy->mu = s->mu;
    pyggml_history_free(&copy->recent);
    if (!pyggml_history_copy(&copy->recent, &s->recent)) {
        pyggml_sampler_free(copy);
        return NULL;
    }
    return copy;
}

void pyggml_sampler_free(pyggml_sampler * s) {
    if (s != NULL) {
        pyggml_history_free(&s->recent);
        free(s->scratch);
        free(s);
    }
}

void pyggml_sampler_accept(pyggml_sampler * s, const int32_t * tokens, int32_t n) {
    pyggml_history_push(&s->recent, tokens, n);
}

void pyggml_sampler_accept_one(pyggml_sampler * s, int32_t token) {
    pyggml_history_push(&s->recent, &token, 1);
}

static bool make_room(pyggml_sampler * s, int32_t n) {
    if (n <= s->room) {
        return true;
    }
    const size_t chunks = (size_t) row_chunks(n), groups = chunks * ROW_GROUPS;
    const size_t keys = groups > (size_t) n ? groups : (size_t) n;
    free(s->scratch);
    s->room = 0;
    s->scratch = malloc(8 * (keys + chunks) + 4 * (3 * (size_t) n + groups + chunks));
    if (s->scratch == NULL) {
        return false;
    }
    s->room = n;
    s->keys = s->scratch;
    s->chunk_weights = (double *) (s->keys + keys);
    s->groups = (float *) (s->chunk_weights + chunks);
    s->chunks = s->groups + groups;
    s->row = s->chunks + chunks;
    s->values = s->row + n;
    s->ids = (int32_t *) (s->values + n);
    return true;
}

// PCG64 (O'Neill 2014, XSL-RR 128/64), as numpy has it: uniform in [0, 1), 53 bits.
double pyggml_uniform(pyggml_sampler * s) {
    s->state = s->state * ((wide_uint) 0x2360ED051FC65DA4 << 64 | 0x4385DF649FCCF645) + s->increment;
    const uint64_t folded = (uint64_t) (s->state >> 64) ^ (uint64_t) s->state;
    const uint32_t turn = (uint32_t) (s->state >> 122);
    const uint64_t bits = folded >> turn | folded << ((64 - turn) & 63);
    return (double) (bits >> 11) * 0x1p-53;
}

// Mask, bias and penalties, on a copy: the caller's row is never written. Returns the row to go on with, NULL when the
// mask forbids everything.
static const float * prepare(pyggml_sampler * s, const float * logits, int32_t n, const int32_t * mask) {
    const struct pyggml_sampling * o = &s->options;
    const bool penalties = pyggml_history_matters(&s->recent, o);
    if (mask != NULL) {
        if (!s->passes->mask(logits, n, mask, s->row)) {
            return NULL;
        }
    } else if (o->n_bias > 0 || penalties) {
        memcpy(s->row, logits, (size_t) n * sizeof(float));
    } else {
        return logits;
    }
    for (int32_t i = 0; i < o->n_bias; i++) {
        if (o->bias_ids[i] < n) {
            s->row[o->bias_ids[i]] += o->biases[i];
        }
    }
    if (penalties) {
        pyggml_history_apply(&s->recent, o, s->row, n);
    }
    return s->row;
}

// Set up all tokens as candidates; returns 0 or an error code.
static int32_t begin(pyggml_sampler * s, candidates * c, const float * logits, int32_t n, const int32_t * mask) {
    if (n <= 0 || !make_room(s, n)) {
        return n <= 0 ? PYGGML_SAMPLE_NOTHING : PYGGML_SAMPLE_MEMORY;
    }
    *c = (candidates) {.n = n};
    c->row = c->x = prepare(s, logits, n, mask);
    if (c->x == NULL) {
        return PYGGML_SAMPLE_NOTHING;
    }
    if (!pyggml_survey(s, c)) {
        return PYGGML_SAMPLE_NAN;
    }
    if (c->max == -INFINITY && (mask != NULL || s->options.n_bias > 0)) {
        return PYGGML_SAMPLE_NOTHING;
    }
    return isinf(c->max) ? PYGGML_SAMPLE_INFINITE : 0;
}

// The first of the largest.
static int32_t best(const pyggml_sampler * s, const candidates * c) {
    for (int32_t chunk = 0;; chunk++) {
        if (s->chunks[chunk] == c->max) {
            int32_t i = chunk * ROW_CHUNK;
            while (c->x[i] != c->max) {
                i++;
            }
            return i;
        }
    }
}

// Draw one of the candidates with weights exp((logit - max) * scale); returns its index, and its chance.
static int32_t draw(pyggml_sampler * s, const candidates * c, float scale, double * chance) {
    const double total = s->passes->weights(c->x, c->n, c->max, scale, s->chunk_weights);
    double left = pyggml_uniform(s) * total;
    int32_t chunk = 0;
    for (; chunk + 1 < row_chunks(c->n) && left >= s->chunk_weights[chunk]; chunk++) {
        left -= s->chunk_weights[chunk];
    }
    while (s->chunk_weights[chunk] <= 0.0) { // rounding led behind the last weight
        chunk--;
        left = total;
    }
    int32_t drawn = -1;
    const int32_t start = chunk * ROW_CHUNK, end = c->n - start < ROW_CHUNK ? c->n : start + ROW_CHUNK;
    for (int32_t i = start; i < end && (drawn < 0 || left >= 0.0); i++) {
        const double weight = (double) s->passes->weigh(c->x[i], c->max, scale);
        if (weight > 0.0) {
            drawn = i; // the last one, should the sum fall short by rounding
            left -= weight;
            *chance = weight / total;
        }
    }
    return drawn;
}

int32_t pyggml_sampler_sample(pyggml_sampler * s, const float * logits, int32_t n, const int32_t * mask) {
    const struct pyggml_sampling * o = &s->options;
    candidates c;
    const int32_t error = begin(s, &c, logits, n, mask);
    if (error != 0) {
        return error;
    }
    if (o->temperature <= 0.0) {
        return best(s, &c);
    }
    const float scale = pyggml_truncate(s, &c);
    double chance = 1.0;
    const int32_t drawn = draw(s, &c, scale, &chance);
    if (o->mirostat != 0) {
        s->mu -= o->mirostat_eta * (-log2(chance) - o->mirostat_tau);
    }
    return token_at(&c, drawn);
}

int32_t pyggml_sampler_distribution(pyggml_sampler * s, const float * logits, int32_t n, const int32_t * mask,
                                    int32_t * ids, double * probs) {
    candidates c;
    const int32_t error = begin(s, &c, logits, n, mask);
    if (error != 0) {
        return error;
    }
    if (s->options.temperature <= 0.0) {
        ids[0] = best(s, &c);
        probs[0] = 1.0;
        return 1;
    }
    const wide_uint state = s->state; // XTC may draw
    const float scale = pyggml_truncate(s, &c);
    s->state = state;
    double total = 0.0;
    int32_t m = 0;
    for (int32_t i = 0; i < c.n; i++) {
        if (c.x[i] > -INFINITY) {
            ids[m] = token_at(&c, i);
            probs[m] = exp(((double) c.x[i] - (double) c.max) * (double) scale);
            total += probs[m++];
        }
    }
    for (int32_t i = 0; i < m; i++) {
        probs[i] /= total;
    }
    return m;
}
