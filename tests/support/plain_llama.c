#include "tests/support/plain_llama.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "model/float16.h"
#include "model/tiles.h"

static void *room(size_t count, size_t bytes)
{
    void *memory = calloc(count, bytes);
    if (!memory)
        fail_msg("no memory for the test");
    return memory;
}

/* All values of a tensor of the file; NULL when it has none. */
static float *tensor(const struct gguf *g, uint32_t layer, const char *suffix)
{
    char name[64];
    if (layer == UINT32_MAX)
        snprintf(name, sizeof name, "%s", suffix);
    else
        snprintf(name, sizeof name, "blk.%u.%s.weight", layer, suffix);
    const struct gguf_tensor *t = gguf_tensor_find(g, name);
    if (!t)
        return NULL;
    uint64_t n = t->extent[0] * t->extent[1];
    float *values = room(n, sizeof *values);
    blocks_to_float(t->type, t->data, n, values);
    return values;
}

/* y (count, rows) = x (count, cols) w' with w (rows, cols); add: y += . */
static void multiply(double *y, const double *x, float *w, uint32_t count, uint32_t rows, uint32_t cols, bool add)
{
    for (size_t t = 0; t < count; t++)
        for (size_t r = 0; r < rows; r++) {
            double sum = 0;
            for (size_t c = 0; c < cols; c++)
                sum += x[t * cols + c] * (double)w[r * cols + c];
            y[t * rows + r] = add ? y[t * rows + r] + sum : sum;
        }
    free(w);
}

static void norm(double *y, const double *x, float *w, uint32_t count, uint32_t dim, double eps)
{
    for (size_t t = 0; t < count; t++) {
        double squares = 0;
        for (size_t i = 0; i < dim; i++)
            squares += x[t * dim + i] * x[t * dim + i];
        for (size_t i = 0; i < dim; i++)
            y[t * dim + i] = x[t * dim + i] / sqrt(squares / dim + eps) * (double)w[i];
    }
    free(w);
}

static void rotate(double *x, const struct model *m, const float *freqs, uint32_t count, uint32_t heads)
{
    for (uint32_t t = 0; t < count; t++)
        for (uint32_t h = 0; h < heads; h++)
            for (uint32_t i = 0; i < m->rope_pairs; i++) {
                double *pair = x + ((size_t)t * heads + h) * m->head_dim + 2 * i;
                double angle =
                    t * pow((double)m->rope_base, -2.0 * i / (2.0 * m->rope_pairs)) / (freqs ? (double)freqs[i] : 1.0);
                double even = pair[0] * cos(angle) - pair[1] * sin(angle),
                       odd = pair[0] * sin(angle) + pair[1] * cos(angle);
                pair[0] = even;
                pair[1] = odd;
            }
}

/* Puts what stands in a page in the place of *own; returns how much farther than by rounding it is from there. */
static double exchange(double *own, const uint8_t *page_value)
{
    uint16_t half;
    memcpy(&half, page_value, sizeof half);
    double other = (double)f32_from_f16(half), excess = fabs(other - *own) - fabs(*own) * 0x1p-11;
    *own = other;
    return excess;
}

/* K lies as [head_dim / 2][16][2] in its page, V as [16][head_dim]. */
static double take_from_pages(double *k, double *v, const struct model *m, uint32_t layer, uint8_t *const *pages,
                              uint32_t count)
{
    double worst = 0;
    for (uint32_t t = 0; t < count; t++)
        for (uint32_t h = 0; h < m->kv_heads; h++)
            for (uint32_t i = 0; i < m->head_dim; i++) {
                const uint8_t *page = pages[t / 16];
                size_t at = ((size_t)t * m->kv_heads + h) * m->head_dim + i;
                double excess_k =
                    exchange(&k[at], page + model_page_k_offset(m, layer, h) + ((i / 2 * 16 + t % 16) * 2 + i % 2) * 2);
                double excess_v =
                    exchange(&v[at], page + model_page_v_offset(m, layer, h) + (t % 16 * m->head_dim + i) * 2);
                worst = fmax(worst, fmax(excess_k, excess_v));
            }
    return worst;
}

static void attend(double *out, const double *q, const double *k, const double *v, const struct model *m,
                   uint32_t count)
{
    uint32_t d = m->head_dim, group = m->heads / m->kv_heads;
    double *p = room(count, sizeof *p);
    for (uint32_t t = 0; t < count; t++)
        for (uint32_t h = 0; h < m->heads; h++) {
            double sum = 0, most = -INFINITY, *o = out + ((size_t)t * m->heads + h) * d;
            for (uint32_t s = 0; s <= t; s++) {
                p[s] = 0;
                for (uint32_t i = 0; i < d; i++)
                    p[s] += q[((size_t)t * m->heads + h) * d + i] * k[((size_t)s * m->kv_heads + h / group) * d + i];
                p[s] /= sqrt(d);
                most = fmax(most, p[s]);
            }
            for (uint32_t s = 0; s <= t; s++)
                sum += p[s] = exp(p[s] - most);
            for (uint32_t i = 0; i < d; i++) {
                o[i] = 0;
                for (uint32_t s = 0; s <= t; s++)
                    o[i] += p[s] / sum * v[((size_t)s * m->kv_heads + h / group) * d + i];
            }
        }
    free(p);
}

double plain_llama(const struct model *m, const struct gguf *g, const uint32_t *ids, uint32_t count,
                   uint8_t *const *pages, float *logits)
{
    double worst = 0;
    uint32_t q_dim = m->heads * m->head_dim, kv_dim = m->kv_heads * m->head_dim,
             wide = m->ffn > m->vocab ? m->ffn : m->vocab;
    double *hidden = room((size_t)count * m->dim, sizeof *hidden), *x = room((size_t)count * m->dim, sizeof *x);
    double *q = room((size_t)count * q_dim, sizeof *q), *attn = room((size_t)count * q_dim, sizeof *attn);
    double *k = room((size_t)count * kv_dim, sizeof *k), *v = room((size_t)count * kv_dim, sizeof *v);
    double *gate = room((size_t)count * wide, sizeof *gate), *up = room((size_t)count * m->ffn, sizeof *up);
    float *embed = tensor(g, UINT32_MAX, "token_embd.weight"), *freqs = tensor(g, UINT32_MAX, "rope_freqs.weight");

    for (size_t t = 0; t < count; t++)
        for (size_t i = 0; i < m->dim; i++)
            hidden[t * m->dim + i] = (double)embed[ids[t] * (size_t)m->dim + i];
    for (uint32_t layer = 0; layer < m->layers; layer++) {
        norm(x, hidden, tensor(g, layer, "attn_norm"), count, m->dim, (double)m->norm_eps);
        multiply(q, x, tensor(g, layer, "attn_q"), count, q_dim, m->dim, false);
        multiply(k, x, tensor(g, layer, "attn_k"), count, kv_dim, m->dim, false);
        multiply(v, x, tensor(g, layer, "attn_v"), count, kv_dim, m->dim, false);
        rotate(q, m, freqs, count, m->heads);
        rotate(k, m, freqs, count, m->kv_heads);
        if (pages)
            worst = fmax(worst, take_from_pages(k, v, m, layer, pages, count));
        attend(attn, q, k, v, m, count);
        multiply(hidden, attn, tensor(g, layer, "attn_output"), count, m->dim, q_dim, true);

        norm(x, hidden, tensor(g, layer, "ffn_norm"), count, m->dim, (double)m->norm_eps);
        multiply(gate, x, tensor(g, layer, "ffn_gate"), count, m->ffn, m->dim, false);
        multiply(up, x, tensor(g, layer, "ffn_up"), count, m->ffn, m->dim, false);
        for (size_t i = 0; i < (size_t)count * m->ffn; i++)
            gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
        multiply(hidden, gate, tensor(g, layer, "ffn_down"), count, m->dim, m->ffn, true);
    }
    norm(x, hidden, tensor(g, UINT32_MAX, "output_norm.weight"), count, m->dim, (double)m->norm_eps);
    float *head = tensor(g, UINT32_MAX, "output.weight");
    multiply(gate, x, head ? head : tensor(g, UINT32_MAX, "token_embd.weight"), count, m->vocab, m->dim, false);
    for (size_t i = 0; i < (size_t)count * m->vocab; i++)
        logits[i] = (float)gate[i];

    free(hidden), free(x), free(q), free(attn), free(k), free(v), free(gate), free(up), free(embed), free(freqs);
    return worst;
}
