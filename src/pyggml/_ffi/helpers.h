// What must not run in Python once per token or once per node. Tested in tests/ffi.
#ifndef PYGGML_HELPERS_H
#define PYGGML_HELPERS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Fill n function pointers from a library that is already open. Returns the number of names that are missing,
// or -1 when the library at that path is not open in this process.
int pyggml_bind(const char * path, const char * const * names, void ** slots, int n);

// Ask for huge pages for what lies wholly inside [base, base + n), which was not touched yet. Weights are read once per
// token: with pages of 2 MiB that is up to 8 % faster. Returns the bytes asked for; 0 where the system has no such call.
size_t pyggml_use_huge_pages(void * base, size_t n);

// Give memory that was freed back to the system, where malloc keeps it (glibc).
void pyggml_trim_memory(void);

// A causal attention mask. Row i (of n_rows) is a token at pos[i] of sequence seq[i]; column j (of n_cells) is a cell
// at cell_pos[j] (-1: empty) whose sequences are the bits of cell_seq[j]. The entry is 0 where the token may look at
// the cell and -inf elsewhere. window > 0: only the last `window` positions, itself included. chunk > 0: only
// positions of the same chunk. causal[i] == 0 lets row i see later positions too; causal may be NULL.
// Entries are f16 when half is true, else f32. dst holds n_rows * n_cells of them; rows from n_rows to n_pad are -inf.
void pyggml_fill_mask(void * dst, bool half, int n_cells, const int32_t * cell_pos, const uint64_t * cell_seq,
                      int n_rows, int n_pad, const int32_t * pos, const int32_t * seq, const uint8_t * causal,
                      int32_t window, int32_t chunk);

// Every tensor of a graph, found once: sizes the graph before ggml asserts on it, and lets an allocation be undone.
typedef struct pyggml_tracker pyggml_tracker;
struct ggml_tensor;
pyggml_tracker * pyggml_tracker_new(void);
void pyggml_tracker_free(pyggml_tracker * t);

// Add root and all it needs, operands first. Returns how many tensors were new, or -1 without memory.
int pyggml_tracker_add(pyggml_tracker * t, struct ggml_tensor * root);
int pyggml_tracker_n_items(const pyggml_tracker * t);
// The items that are nodes; the others are leaves.
int pyggml_tracker_n_nodes(const pyggml_tracker * t);
struct ggml_tensor * pyggml_tracker_get(const pyggml_tracker * t, int i);

// Remember every operand (a scheduler replaces them by copies) and which items have no memory; restore undoes what an
// allocation did since. A second restore does nothing.
bool pyggml_tracker_save(pyggml_tracker * t);
void pyggml_tracker_restore(pyggml_tracker * t);
// Operand j of tensor as it was when saved.
struct ggml_tensor * pyggml_tracker_operand(const pyggml_tracker * t, const struct ggml_tensor * tensor, int j);
#endif
