/*
 * kv_type: how keys and values lie in a page. The 16 positions of one kv head, K or V, are one side of head_dim d:
 *
 *   K [d / 2][16 positions][2], V [16 positions][d], elements of the type;
 *   Q8 behind them scales in f16, one for 16 dimensions of one position: K [d / 16][16 positions], V [16 positions][d / 16].
 *
 * What an element stands for, in every kernel set: F16 and BF16 themselves, F32 itself, Q8 the product, rounded to float, of code and
 * scale. What a value becomes: F16 and BF16 the nearest, even on a tie; Q8 s = f16(amax / 127) over its 16 dimensions,
 * code = nearest-even(x * (1 / s)) within +-127; where s is 0, or not finite, codes are 0. Sixteen dimensions are one tile of weights,
 * so that a scale has one owner among the ranks.
 */
#ifndef QUIRE_MODEL_KV_TYPE_H
#define QUIRE_MODEL_KV_TYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum kv_type { KV_F16, KV_BF16, KV_F32, KV_Q8, KV_TYPES };

enum { KV_SLOTS = 16, KV_SCALED = 16 /* dimensions of one scale */, KV_SIDE_ALIGN = 64 };

/* "f16", "bf16", "f32", "q8". */
const char *kv_type_name(enum kv_type type);
/* False: there is none of that name. */
bool kv_type_named(const char *name, enum kv_type *out);

/* Heads of that many dimensions can be kept so. */
static inline bool kv_type_takes(enum kv_type type, uint32_t head_dim)
{
    return type != KV_Q8 || head_dim % KV_SCALED == 0;
}

static inline size_t kv_element_bytes(enum kv_type type)
{
    return type == KV_F32 ? 4 : type == KV_Q8 ? 1 : 2;
}

/* Bytes from the start of a side to its scales. */
static inline size_t kv_scales_offset(uint32_t head_dim)
{
    return (size_t)KV_SLOTS * head_dim;
}

/* Bytes of a side, a multiple of 64. */
static inline size_t kv_side_bytes(enum kv_type type, uint32_t head_dim)
{
    size_t scales = type == KV_Q8 ? (size_t)KV_SLOTS * (head_dim / KV_SCALED) * sizeof(uint16_t) : 0;
    size_t bytes = KV_SLOTS * head_dim * kv_element_bytes(type) + scales;
    return (bytes + KV_SIDE_ALIGN - 1) / KV_SIDE_ALIGN * KV_SIDE_ALIGN;
}

typedef void (*to_f16_fn)(uint16_t *out, const float *x, uint32_t n);

/*
 * Dimensions [from, from + count) of one position into its slot of a side; of Q8 both are multiples of 16, else even. to_f16 is the
 * kernel set's.
 */
void kv_store_k(enum kv_type type, uint8_t *side, uint32_t head_dim, uint32_t slot, uint32_t from, uint32_t count,
                const float *x, to_f16_fn to_f16);
void kv_store_v(enum kv_type type, uint8_t *side, uint32_t head_dim, uint32_t slot, uint32_t from, uint32_t count,
                const float *x, to_f16_fn to_f16);

/* What stands for dimension d of a position: the meaning that the kernels are held to. */
float kv_load_k(enum kv_type type, const uint8_t *side, uint32_t head_dim, uint32_t slot, uint32_t d);
float kv_load_v(enum kv_type type, const uint8_t *side, uint32_t head_dim, uint32_t slot, uint32_t d);

#endif
