#include "model/rope_tables.h"

#include <math.h>
#include <string.h>

/* Llama 3's, and the two of longrope. */
static const char *const factor_names[] = {"rope_freqs.weight", "rope_factors_short.weight",
                                           "rope_factors_long.weight"};
enum { PLAIN_FACTORS, SHORT_FACTORS, LONG_FACTORS, FACTOR_NAMES };

static enum err find_factors(const struct model *m, const struct gguf *g, const char *path, const char *name,
                             const struct gguf_tensor **out, struct why *why)
{
    const struct gguf_tensor *t = gguf_tensor_find(g, name);
    if (t && (t->type != TENSOR_F32 || t->source || t->dims != 1 || t->extent[0] != m->rope_pairs))
        return because(why, ERR_FORMAT, "\"%s\": tensor \"%s\" is not %u numbers of type F32", path, name,
                       m->rope_pairs);
    for (uint32_t i = 0; t && i < m->rope_pairs; i++) {
        float factor;
        memcpy(&factor, t->data + 4 * i, sizeof factor);
        if (!(factor > 1e-3f && factor < 1e6f))
            return because(why, ERR_FORMAT, "\"%s\": tensor \"%s\" holds %g, out of bounds", path, name,
                           (double)factor);
    }
    *out = t;
    return OK;
}

enum err rope_factors_choose(const struct model *m, const struct gguf *g, const char *path, bool *claimed,
                             const struct gguf_tensor **out, struct why *why)
{
    const struct gguf_tensor *found[FACTOR_NAMES] = {NULL};
    for (uint32_t i = 0; i < FACTOR_NAMES && m->rope_pairs > 0; i++) {
        enum err err = find_factors(m, g, path, factor_names[i], &found[i], why);
        if (err != OK)
            return err;
        if (found[i] && claimed)
            claimed[found[i] - gguf_tensor_at(g, 0)] = true;
    }
    if (!found[SHORT_FACTORS] != !found[LONG_FACTORS] ||
        (found[LONG_FACTORS] && (found[PLAIN_FACTORS] || m->context_original == 0)))
        return because(
            why, ERR_FORMAT,
            "\"%s\": RoPE factors for short and long contexts come together, with the key \"%s.rope.scaling.original_context_length\" and without other factors",
            path, m->arch_name);
    *out = found[LONG_FACTORS] ? found[m->context > m->context_original ? LONG_FACTORS : SHORT_FACTORS]
                               : found[PLAIN_FACTORS];
    return OK;
}

void rope_table_rows(const struct model *m, double base, double factor, const struct gguf_tensor *factors,
                     uint64_t first, uint64_t last, float *rows)
{
    double turn[MODEL_MAX_HEAD_DIM / 2];
    for (uint32_t i = 0; i < m->rope_pairs; i++) {
        float slower = 1.0f;
        if (factors)
            memcpy(&slower, factors->data + 4 * i, sizeof slower);
        turn[i] = pow(base, -(double)i / (double)m->rope_pairs) / factor / (double)slower;
    }
    for (uint64_t position = first; position < last; position++, rows += m->rope_pairs * 2)
        for (uint32_t i = 0; i < m->rope_pairs; i++) {
            rows[2 * i] = (float)(cos((double)position * turn[i]) * (double)m->rope_magnitude);
            rows[2 * i + 1] = (float)(sin((double)position * turn[i]) * (double)m->rope_magnitude);
        }
}
