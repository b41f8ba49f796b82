// The sampler on random rows and options, for the sanitizers; and both instruction sets side by side.
// Built and run by test_sanitizers.py: fuzz ROUNDS SEED. Prints what broke and returns 1.
#include "sampler.h"
#include "sampler_rows.c" // for both tables of passes

#include <stdio.h>
#include <stdlib.h>

static uint64_t state;

static uint32_t number(uint32_t below) { // SplitMix64
    uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (uint32_t) ((z ^ z >> 31) % below);
}

static double share(void) {
    static const double corners[] = {0.0, 1e-9, 0.1, 0.5, 0.9, 0.999999, 1.0};
    return number(2) ? corners[number(7)] : number(1000) / 999.0;
}

static double maybe(double value) {
    return number(3) ? 0.0 : value;
}

// Rows end where their memory does, so that a read beyond the end is seen.
static float * random_row(int32_t n) {
    static const float odd[] = {0.0f, -0.0f, -INFINITY, 3e38f, -3e38f, 1e-40f, 60.0f, -100.0f};
    float * x = malloc((size_t) n * sizeof *x);
    const uint32_t kind = number(5);
    for (int32_t i = 0; i < n; i++) {
        x[i] = kind == 0 ? 0.0f : ((float) number(20001) - 10000.0f) * (kind == 1 ? 1e-5f : 1e-3f);
        if (kind == 3 && number(10) == 0) {
            x[i] = odd[number(8)];
        }
        if (kind == 4) {
            x[i] = (float) number(3);
        }
    }
    if (number(20) == 0) {
        x[number((uint32_t) n)] = number(2) ? NAN : INFINITY;
    }
    return x;
}

static struct pyggml_sampling random_options(int32_t n, int32_t * ids, float * biases, int32_t * heads, int32_t * tail_at,
                                             int32_t * tails) {
    struct pyggml_sampling o = {
        .temperature = number(8) ? 0.01 + share() * 3 : (number(2) ? 0.0 : (number(2) ? 1e-300 : 1e300)),
        .dynatemp_range = maybe(share() * 2),
        .dynatemp_exponent = share() * 2,
        .top_n_sigma = maybe(share() * 4),
        .typical_p = number(3) ? 1.0 : share(),
        .top_p = number(2) ? 1.0 : share(),
        .min_p = maybe(share()),
        .xtc_probability = maybe(share()),
        .xtc_threshold = share(),
        .mirostat_tau = share() * 8,
        .mirostat_eta = share(),
        .dry_multiplier = maybe(number(2) ? 1e300 : 1.0),
        .dry_base = 1.0 + share() * 3,
        .repeat_penalty = number(2) ? 1.0f : 0.5f + (float) share(),
        .frequency_penalty = (float) maybe(share() - 0.5),
        .presence_penalty = (float) maybe(share() - 0.5),
        .top_k = (int32_t) number((uint32_t) n + 3) - 1,
        .min_keep = number(3) ? 0 : (int32_t) number((uint32_t) n + 3),
        .mirostat = number(4) ? 0 : (int32_t) number(3),
        .repeat_last_n = (int32_t) number(40),
        .dry_penalty_last_n = (int32_t) number(40),
        .dry_allowed_length = (int32_t) number(5),
        .bias_ids = ids,
        .biases = biases,
        .n_bias = (int32_t) number(4),
        .heads = heads,
        .tail_at = tail_at,
        .tails = tails,
        .n_breakers = (int32_t) number(4),
        .state = {number(1u << 31), number(1u << 31)},
        .increment = {number(1u << 31), number(1u << 31) | 1},
    };
    for (int32_t i = 0; i < o.n_bias; i++) {
        ids[i] = (int32_t) number((uint32_t) n + 5);
        biases[i] = number(4) ? (float) share() * 8 - 4 : -INFINITY;
    }
    tail_at[0] = 0;
    for (int32_t i = 0; i < o.n_breakers; i++) {
        heads[i] = i;
        tail_at[i + 1] = tail_at[i] + (int32_t) number(3);
        for (int32_t j = tail_at[i]; j < tail_at[i + 1]; j++) {
            tails[j] = (int32_t) number(6);
        }
    }
    return o;
}

static int fail(const char * what, int32_t n, double value) {
    printf("%s: n %d, value %g\n", what, n, value);
    return 1;
}

static int one_sampler(int32_t n) {
    int32_t ids[4], heads[4], tail_at[5], tails[16];
    float biases[4];
    const struct pyggml_sampling o = random_options(n, ids, biases, heads, tail_at, tails);
    pyggml_sampler * s = pyggml_sampler_new(&o), * twin = NULL;
    int32_t * left = malloc((size_t) n * sizeof *left);
    double * probs = malloc((size_t) n * sizeof *probs);
    int bad = 0;
    for (int step = 0; step < 6 && !bad; step++) {
        for (uint32_t i = number(30); i > 0; i--) {
            const int32_t token = (int32_t) number(8) - 1;
            pyggml_sampler_accept_one(s, number(50) ? token : n + token);
        }
        pyggml_sampler_free(twin);
        twin = pyggml_sampler_clone(s);
        const int32_t row_n = number(4) ? n : (int32_t) number((uint32_t) n) + 1; // rows may change their size
        float * x = random_row(row_n);
        const size_t words = ((size_t) row_n + 31) / 32;
        int32_t * mask = number(2) ? NULL : malloc(words * sizeof *mask);
        for (size_t i = 0; mask != NULL && i < words; i++) {
            mask[i] = (int32_t) (number(3) ? number(UINT32_MAX) : number(2) ? 0 : UINT32_MAX);
        }
        const int32_t m = pyggml_sampler_distribution(s, x, row_n, mask, left, probs);
        const int32_t token = pyggml_sampler_sample(s, x, row_n, mask);
        double sum = 0.0;
        bool member = false;
        for (int32_t i = 0; i < m; i++) {
            sum += probs[i];
            member |= left[i] == token;
            bad |= left[i] < 0 || left[i] >= row_n || !(probs[i] >= 0.0);
            bad |= mask != NULL && !((uint32_t) mask[left[i] / 32] >> left[i] % 32 & 1);
        }
        bad = bad ? fail("a token that must not be left", row_n, token) : bad;
        bad = (m < 0) != (token < 0) || (m < 0 && m != token) ? fail("error codes differ", row_n, m) : bad;
        bad = m >= 0 && (m == 0 || !member) ? fail("drawn from nowhere", row_n, token) : bad;
        bad = m > 0 && !(fabs(sum - 1.0) < 1e-9) ? fail("sum", row_n, sum) : bad;
        bad = pyggml_sampler_sample(twin, x, row_n, mask) != token ? fail("a clone differs", row_n, token) : bad;
        free(mask);
        free(x);
    }
    free(left);
    free(probs);
    pyggml_sampler_free(twin);
    pyggml_sampler_free(s);
    return bad;
}

static int logprobs(int32_t n) {
    float * x = random_row(n);
    int32_t ids[20];
    double values[20], chosen = 1.0;
    const int32_t top = (int32_t) number(21);
    const int32_t m = pyggml_logprobs(x, n, (int32_t) number((uint32_t) n), top, &chosen, ids, values);
    int bad = m > top || (m >= 0 && !(chosen <= 1e-6));
    for (int32_t i = 0; i < m; i++) {
        bad |= ids[i] < 0 || ids[i] >= n || !(values[i] <= 1e-6) || (i > 0 && values[i] > values[i - 1]);
    }
    free(x);
    return bad ? fail("logprobs", n, chosen) : 0;
}

// Both instruction sets must give the same bits.
static int same_passes(const row_passes * a, const row_passes * b, int32_t n) {
    float * x = random_row(n);
    const int32_t chunks = row_chunks(n);
    float * out[2];
    double * weights[2];
    uint64_t * found[2];
    double sums[2][6];
    int32_t counts[2];
    for (int which = 0; which < 2; which++) {
        const row_passes * p = which ? b : a;
        out[which] = calloc((size_t) chunks * (ROW_GROUPS + 1), sizeof(float));
        weights[which] = calloc((size_t) chunks, sizeof(double));
        found[which] = calloc((size_t) n, sizeof(uint64_t));
        float * maxima = out[which] + (size_t) chunks * ROW_GROUPS;
        memset(sums[which], 0, sizeof sums[which]);
        counts[which] = -1;
        if (!p->survey(x, n, out[which], maxima)) {
            continue;
        }
        float max = maxima[0];
        for (int32_t i = 1; i < chunks; i++) {
            max = maxima[i] > max ? maxima[i] : max;
        }
        if (isinf(max)) {
            continue;
        }
        sums[which][0] = p->weights(x, n, max, 0.7f, weights[which]);
        const row_sums s = p->sums(x, n, max, 1.3f);
        sums[which][1] = s.weight;
        sums[which][2] = s.moment;
        p->spread(x, n, max, &sums[which][3], &sums[which][4]);
        sums[which][5] = p->log_sum(x, n, max);
        counts[which] = p->find(x, n, max - 3.0f, maxima, found[which]);
    }
    int bad = memcmp(sums[0], sums[1], sizeof sums[0]) != 0 || counts[0] != counts[1]
           || memcmp(weights[0], weights[1], (size_t) chunks * sizeof(double)) != 0
           || memcmp(out[0], out[1], (size_t) chunks * (ROW_GROUPS + 1) * sizeof(float)) != 0
           || (counts[0] > 0 && memcmp(found[0], found[1], (size_t) counts[0] * sizeof(uint64_t)) != 0);
    for (int which = 0; which < 2; which++) {
        free(out[which]);
        free(weights[which]);
        free(found[which]);
    }
    free(x);
    return bad ? fail("instruction sets differ", n, sums[0][0]) : 0;
}

int main(int argc, char ** argv) {
    const long rounds = argc > 1 ? atol(argv[1]) : 100;
    state = argc > 2 ? (uint64_t) atol(argv[2]) : 1;
    static const int32_t sizes[] = {1, 2, 7, 8, 9, 31, 32, 33, 300, 1023, 1024, 1025, 5000};
    for (long round = 0; round < rounds; round++) {
        const int32_t n = number(2) ? sizes[number(13)] : (int32_t) number(64) + 1;
        if (one_sampler(n) || logprobs(n) || same_passes(&base_passes, pyggml_row_passes(), n)) {
            printf("round %ld of seed %s\n", round, argc > 2 ? argv[2] : "1");
            return 1;
        }
    }
    return 0;
}
