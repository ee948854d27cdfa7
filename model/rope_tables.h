/*
 * rope_tables: cosines and sines of the rotation of queries and keys, and the factors by which a file slows single pairs down: Llama 3's,
 * or longrope's two lists (arXiv:2402.13753), of which one holds for all positions of a context.
 */
#ifndef QUIRE_MODEL_ROPE_TABLES_H
#define QUIRE_MODEL_ROPE_TABLES_H

#include "model/model.h"

/*
 * The tensor of factors that holds for m->context; *out NULL: none does. All of the file's are checked, and marked in claimed (tensors of
 * the file), which may be NULL.
 */
enum err rope_factors_choose(const struct model *m, const struct gguf *g, const char *path, bool *claimed,
                             const struct gguf_tensor **out, struct why *why);

/*
 * Rows of positions [first, last), the first of them at `rows`: row[pair] = cos and sin of position * base^(-pair / pairs) / factor /
 * factors[pair], times m->rope_magnitude; in double until the end. factors may be NULL.
 */
void rope_table_rows(const struct model *m, double base, double factor, const struct gguf_tensor *factors,
                     uint64_t first, uint64_t last, float *rows);

#endif
