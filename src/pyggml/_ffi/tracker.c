#include "helpers.h"

#include <stdlib.h>
#include <string.h>

#include "ggml.h"

// A growing list of tensors with an open-addressing set over it.
struct pyggml_tracker {
    struct ggml_tensor ** items; // operands before their users
    int n_items, capacity;
    int n_nodes;
    int32_t * slots; // index into items, -1: free; a power of two of them, at most half used
    size_t n_slots;
    struct ggml_tensor ** sources; // saved operands, GGML_MAX_SRC per item
    uint8_t * unplaced;            // saved: the item had no memory
    int n_saved;
};

pyggml_tracker * pyggml_tracker_new(void) {
    return calloc(1, sizeof(pyggml_tracker));
}

void pyggml_tracker_free(pyggml_tracker * t) {
    if (t != NULL) {
        free(t->items);
        free(t->slots);
        free(t->sources);
        free(t->unplaced);
        free(t);
    }
}

static size_t find(const pyggml_tracker * t, const struct ggml_tensor * tensor) {
    size_t i = ((size_t) tensor >> 4) * (size_t) 0x9E3779B97F4A7C15u;
    for (i &= t->n_slots - 1; t->slots[i] >= 0 && t->items[t->slots[i]] != tensor; i = (i + 1) & (t->n_slots - 1)) {
    }
    return i;
}

static bool reserve(pyggml_tracker * t, int n) {
    if (n > t->capacity) {
        int capacity = t->capacity ? t->capacity * 2 : 256;
        void * items = realloc(t->items, sizeof(*t->items) * capacity);
        if (items == NULL) {
            return false;
        }
        t->items = items;
        t->capacity = capacity;
    }
    if ((size_t) n * 2 > t->n_slots) {
        size_t n_slots = t->n_slots ? t->n_slots * 2 : 1024;
        int32_t * slots = malloc(sizeof(*slots) * n_slots);
        if (slots == NULL) {
            return false;
        }
        memset(slots, 0xFF, sizeof(*slots) * n_slots);
        free(t->slots);
        t->slots = slots;
        t->n_slots = n_slots;
        for (int i = 0; i < t->n_items; i++) {
            t->slots[find(t, t->items[i])] = i;
        }
    }
    return true;
}

static bool append(pyggml_tracker * t, struct ggml_tensor * tensor) {
    if (!reserve(t, t->n_items + 1)) {
        return false;
    }
    t->slots[find(t, tensor)] = t->n_items;
    t->items[t->n_items++] = tensor;
    t->n_nodes += tensor->op != GGML_OP_NONE || (tensor->flags & GGML_TENSOR_FLAG_PARAM);
    return true;
}

static bool known(const pyggml_tracker * t, const struct ggml_tensor * tensor) {
    return t->n_slots > 0 && t->slots[find(t, tensor)] >= 0;
}

typedef struct {
    struct ggml_tensor * tensor;
    int next; // operand to visit next
} visit;

int pyggml_tracker_add(pyggml_tracker * t, struct ggml_tensor * root) {
    int before = t->n_items, depth = 0, capacity = 64;
    visit * stack = malloc(sizeof(*stack) * capacity);
    if (stack == NULL) {
        return -1;
    }
    if (!known(t, root)) {
        stack[depth++] = (visit) { root, 0 };
    }
    bool ok = true;
    while (ok && depth > 0) {
        visit * top = &stack[depth - 1];
        if (top->next == GGML_MAX_SRC) {
            ok = known(t, top->tensor) || append(t, top->tensor);
            depth--;
            continue;
        }
        struct ggml_tensor * source = top->tensor->src[top->next++];
        if (source == NULL || source == top->tensor || known(t, source)) { // a cast names itself as an operand
            continue;
        }
        if (depth == capacity) {
            visit * larger = realloc(stack, sizeof(*stack) * capacity * 2);
            ok = larger != NULL;
            if (!ok) {
                break;
            }
            stack = larger;
            capacity *= 2;
        }
        stack[depth++] = (visit) { source, 0 };
    }
    free(stack);
    return ok ? t->n_items - before : -1;
}

int pyggml_tracker_n_nodes(const pyggml_tracker * t) {
    return t->n_nodes;
}

int pyggml_tracker_n_items(const pyggml_tracker * t) {
    return t->n_items;
}

struct ggml_tensor * pyggml_tracker_get(const pyggml_tracker * t, int i) {
    return t->items[i];
}

bool pyggml_tracker_save(pyggml_tracker * t) {
    size_t n = t->n_items > 0 ? t->n_items : 1;
    void * sources = realloc(t->sources, sizeof(*t->sources) * GGML_MAX_SRC * n);
    if (sources == NULL) {
        return false;
    }
    t->sources = sources;
    void * unplaced = realloc(t->unplaced, n);
    if (unplaced == NULL) {
        return false;
    }
    t->unplaced = unplaced;
    for (int i = 0; i < t->n_items; i++) {
        struct ggml_tensor * tensor = t->items[i];
        memcpy(&t->sources[(size_t) i * GGML_MAX_SRC], tensor->src, sizeof(tensor->src));
        t->unplaced[i] = tensor->buffer == NULL; // a dry buffer gives no address
    }
    t->n_saved = t->n_items;
    return true;
}

void pyggml_tracker_restore(pyggml_tracker * t) {
    for (int i = 0; i < t->n_saved; i++) {
        struct ggml_tensor * tensor = t->items[i];
        memcpy(tensor->src, &t->sources[(size_t) i * GGML_MAX_SRC], sizeof(tensor->src));
        if (t->unplaced[i]) {
            tensor->data = NULL;
            tensor->buffer = NULL;
            tensor->extra = NULL;
        }
    }
    t->n_saved = 0;
}

struct ggml_tensor * pyggml_tracker_operand(const pyggml_tracker * t, const struct ggml_tensor * tensor, int j) {
    int32_t i = t->n_slots > 0 ? t->slots[find(t, tensor)] : -1;
    return i >= 0 && i < t->n_saved ? t->sources[(size_t) i * GGML_MAX_SRC + j] : tensor->src[j];
}
