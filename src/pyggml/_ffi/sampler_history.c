#include "sampler_history.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { EMPTY = -1 };

static bool penalizes(const struct pyggml_sampling * o) {
    return o->repeat_last_n > 0
        && (o->repeat_penalty != 1.0f || o->frequency_penalty != 0.0f || o->presence_penalty != 0.0f);
}

static bool dries(const struct pyggml_sampling * o) {
    return o->dry_penalty_last_n > 0 && o->dry_multiplier != 0.0;
}

// A power of two, twice as many as tokens.
static uint32_t slots_for(int32_t n) {
    uint32_t slots = 16;
    while (slots < 2 * (uint32_t) n) {
        slots *= 2;
    }
    return slots;
}

static bool allocate(history * h) {
    if (h->capacity == 0) {
        return true;
    }
    h->n_slots = slots_for(h->capacity);
    h->ring = calloc((size_t) h->capacity, sizeof(int32_t));
    h->recent = calloc((size_t) h->capacity, sizeof(int32_t));
    h->repeats = calloc((size_t) h->capacity, sizeof(int32_t));
    h->slots = calloc(h->n_slots, sizeof(history_slot));
    return h->ring != NULL && h->recent != NULL && h->repeats != NULL && h->slots != NULL;
}

bool pyggml_history_init(history * h, const struct pyggml_sampling * o) {
    memset(h, 0, sizeof *h);
    if (penalizes(o)) {
        h->capacity = o->repeat_last_n;
    }
    if (dries(o) && o->dry_penalty_last_n > h->capacity) {
        h->capacity = o->dry_penalty_last_n;
    }
    return allocate(h);
}

bool pyggml_history_copy(history * to, const history * from) {
    *to = *from;
    to->ring = to->recent = to->repeats = NULL;
    to->slots = NULL;
    if (!allocate(to)) {
        return false;
    }
    if (from->capacity > 0) {
        memcpy(to->ring, from->ring, (size_t) from->capacity * sizeof(int32_t));
    }
    return true;
}

void pyggml_history_free(history * h) {
    free(h->ring);
    free(h->recent);
    free(h->repeats);
    free(h->slots);
}

void pyggml_history_push(history * h, const int32_t * tokens, int32_t n) {
    if (n > h->capacity) {
        tokens += n - h->capacity;
        n = h->capacity;
    }
    for (int32_t i = 0; i < n; i++) {
        h->ring[h->next] = tokens[i];
        h->next = h->next + 1 == h->capacity ? 0 : h->next + 1;
        h->length += h->length < h->capacity;
    }
}

bool pyggml_history_matters(const history * h, const struct pyggml_sampling * o) {
    return h->length > 0 && (penalizes(o) || dries(o));
}

// Write the latest tokens to h->recent, latest first; returns how many.
static int32_t look_back(history * h, int32_t last_n) {
    const int32_t n = last_n < h->length ? last_n : h->length;
    for (int32_t i = 0, at = h->next; i < n; i++) {
        at = at == 0 ? h->capacity - 1 : at - 1;
        h->recent[i] = h->ring[at];
    }
    return n;
}

// Empty the table, with room for n tokens of the history.
static void clear(history * h, int32_t n) {
    h->n_slots = slots_for(n);
    for (uint32_t i = 0; i < h->n_slots; i++) {
        h->slots[i] = (history_slot) {EMPTY, 0};
    }
}

// The slot of a token that is not negative: found, or made with the number 0. There are more slots than tokens.
static history_slot * slot_of(history * h, int32_t token) {
    uint32_t at = (uint32_t) token * 2654435769u >> 7; // Fibonacci hashing
    for (;; at++) {
        history_slot * slot = &h->slots[at & (h->n_slots - 1)];
        if (slot->token == token) {
            return slot;
        }
        if (slot->token == EMPTY) {
            slot->token = token;
            return slot;
        }
    }
}

static void penalize(history * h, const struct pyggml_sampling * o, float * row, int32_t n) {
    const int32_t n_recent = look_back(h, o->repeat_last_n);
    clear(h, n_recent);
    for (int32_t i = 0; i < n_recent; i++) {
        if (h->recent[i] >= 0 && h->recent[i] < n) {
            slot_of(h, h->recent[i])->number++;
        }
    }
    for (uint32_t i = 0; i < h->n_slots; i++) {
        const history_slot slot = h->slots[i];
        if (slot.token != EMPTY) {
            float * logit = &row[slot.token];
            *logit = *logit > 0.0f ? *logit / o->repeat_penalty : *logit * o->repeat_penalty;
            *logit -= (float) slot.number * o->frequency_penalty + o->presence_penalty;
        }
    }
}

// The first sequence that starts with the token; *end is behind the last.
static int32_t breakers_of(const struct pyggml_sampling * o, int32_t token, int32_t * end) {
    int32_t low = 0, high = o->n_breakers;
    while (low < high) {
        const int32_t mid = low + (high - low) / 2;
        if (o->heads[mid] < token) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    *end = low;
    while (*end < o->n_breakers && o->heads[*end] == token) {
        ++*end;
    }
    return low;
}

static bool breaks_alone(const struct pyggml_sampling * o, int32_t token) {
    int32_t end;
    for (int32_t i = breakers_of(o, token, &end); i < end; i++) {
        if (o->tail_at[i] == o->tail_at[i + 1]) {
            return true;
        }
    }
    return false;
}

// Length of the longest sequence that starts with recent[at] and goes on towards the present, without its head; -1: none.
static int32_t breaker_at(const struct pyggml_sampling * o, const int32_t * recent, int32_t at) {
    int32_t longest = -1, end;
    for (int32_t i = breakers_of(o, recent[at], &end); i < end; i++) {
        const int32_t * tail = o->tails + o->tail_at[i];
        const int32_t length = o->tail_at[i + 1] - o->tail_at[i];
        if (length <= longest || length > at) {
            continue;
        }
        int32_t same = 0;
        while (same < length && tail[same] == recent[at - 1 - same]) {
            same++;
        }
        if (same == length) {
            longest = length;
        }
    }
    return longest;
}

// repeats[i]: how many tokens from recent[i] backwards equal those from recent[0] backwards (the Z function of Gusfield,
// "Algorithms on Strings, Trees, and Sequences", 1997; linear).
static void count_repeats(const int32_t * recent, int32_t * repeats, int32_t n) {
    int32_t left = 0, right = 0; // the stretch of a repeat that reaches furthest
    for (int32_t i = 1; i < n; i++) {
        int32_t z = 0;
        if (i < right) {
            z = repeats[i - left] < right - i ? repeats[i - left] : right - i;
        }
        while (i + z < n && recent[z] == recent[i + z]) {
            z++;
        }
        repeats[i] = z;
        if (i + z > right) {
            left = i;
            right = i + z;
        }
    }
}

// DRY (p-e-w, "DRY: A modern repetition penalty", 2024): a token that would go on repeating what came before loses
// multiplier * base ^ (length of the repeat - allowed length).
static void dry(history * h, const struct pyggml_sampling * o, float * row, int32_t n) {
    const int32_t n_recent = look_back(h, o->dry_penalty_last_n);
    if (n_recent <= o->dry_allowed_length) {
        return;
    }
    int32_t longest = n_recent; // no repeat reaches back across a breaker
    for (int32_t i = 0; i < n_recent; i++) {
        const int32_t tail = breaker_at(o, h->recent, i);
        if (tail >= 0) {
            longest = i - tail;
            break;
        }
    }
    if (longest < o->dry_allowed_length) {
        return;
    }
    count_repeats(h->recent, h->repeats, n_recent);
    clear(h, n_recent);
    for (int32_t i = 1; i < n_recent; i++) {
        const int32_t next = h->recent[i - 1]; // what followed the repeat
        const int32_t length = h->repeats[i] < longest ? h->repeats[i] : longest;
        if (length >= o->dry_allowed_length && next >= 0 && next < n) {
            history_slot * slot = slot_of(h, next);
            slot->number = slot->number > length ? slot->number : length;
        }
    }
    for (uint32_t i = 0; i < h->n_slots; i++) {
        const history_slot slot = h->slots[i];
        if (slot.token != EMPTY && !breaks_alone(o, slot.token)) {
            const double penalty = o->dry_multiplier * pow(o->dry_base, slot.number - o->dry_allowed_length);
            row[slot.token] -= penalty < 3e38 ? (float) penalty : 3e38f;
        }
    }
}

void pyggml_history_apply(history * h, const struct pyggml_sampling * o, float * row, int32_t n) {
    if (h->length > 0 && penalizes(o)) {
        penalize(h, o, row, n);
    }
    if (h->length > 0 && dries(o)) {
        dry(h, o, row, n);
    }
}
