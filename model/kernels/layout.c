/*
 * layout: what all kernel sets share: where quantised activations lie, how large scratch is, and what is not hot.
 */
#include <math.h>

#include "base/must.h"
#include "model/kernels/kernels.h"
#include "model/kernels/scratch.h"

static size_t aligned(size_t bytes)
{
    return (bytes + KERNEL_ALIGN - 1) / KERNEL_ALIGN * KERNEL_ALIGN;
}

static size_t group_count(uint32_t tokens)
{
    return ((size_t)tokens + ACTIVATION_GROUP - 1) / ACTIVATION_GROUP;
}

static uint32_t width_of(uint32_t tokens)
{
    uint32_t width = 1;
    while (width < tokens && width < ACTIVATION_GROUP)
        width *= 2;
    return width;
}

/* Bytes of the codes, and of each of the per-block arrays. Columns that are no multiple of 32 are never quantised. */
static size_t code_bytes(uint32_t tokens, uint32_t cols)
{
    return aligned(group_count(tokens) * width_of(tokens) * cols);
}

static size_t per_block_bytes(uint32_t tokens, uint32_t cols)
{
    return aligned(group_count(tokens) * width_of(tokens) * (cols / TILE_K) * sizeof(float));
}

size_t activations_bytes(uint32_t tokens, uint32_t cols)
{
    return code_bytes(tokens, cols) + 4 * per_block_bytes(tokens, cols);
}

void activations_place(struct activations *a, void *memory, uint32_t tokens, uint32_t cols, const float *x,
                       size_t x_stride)
{
    must((uintptr_t)memory % KERNEL_ALIGN == 0);
    uint8_t *at = memory;
    size_t per_block = per_block_bytes(tokens, cols);
    *a = (struct activations){.tokens = tokens, .width = width_of(tokens), .cols = cols, .x = x, .x_stride = x_stride};
    a->q = (int8_t *)at;
    at += code_bytes(tokens, cols);
    a->scale = (float *)(void *)at;
    a->sum = (float *)(void *)(at + per_block);
    a->isum = (int32_t *)(void *)(at + 2 * per_block);
    a->half = (int32_t *)(void *)(at + 3 * per_block);
}

struct activations activations_of_groups(const struct activations *a, uint32_t first, uint32_t end)
{
    must(first <= end && end <= group_count(a->tokens));
    struct activations part = *a;
    part.tokens = 0;
    if (first == end)
        return part;
    uint32_t token = first * ACTIVATION_GROUP, all = a->tokens - token, most = (end - first) * ACTIVATION_GROUP;
    size_t per_block = (size_t)token * (a->cols / TILE_K);
    part.tokens = all < most ? all : most; /* the last group may not be full */
    part.x += (size_t)token * a->x_stride;
    part.q += (size_t)token * a->cols;
    part.scale += per_block;
    part.sum += per_block;
    part.isum += per_block;
    part.half += per_block;
    return part;
}

size_t product_scratch_bytes(uint32_t max_cols)
{
    return aligned(sizeof(struct unpacked_block) * (((size_t)max_cols + TILE_K - 1) / TILE_K));
}

size_t attention_scratch_bytes(uint32_t head_dim)
{
    return aligned(ATTENTION_ROWS * (ATTENTION_GRID + 2 * (size_t)head_dim) * sizeof(float));
}

/* The order of the kernels' sums: element i in lane i % 16, then the tree 8-4-2-1. */
static float sum_of_lanes(float lane[16])
{
    for (uint32_t width = 8; width > 0; width /= 2)
        for (uint32_t i = 0; i < width; i++)
            lane[i] += lane[i + width];
    return lane[0];
}

void layer_norm(float *y, const float *x, const float *weight, const float *bias, uint32_t n, float eps)
{
    float lane[16] = {0}, square[16] = {0};
    for (uint32_t i = 0; i < n; i++)
        lane[i % 16] += x[i];
    float mean = sum_of_lanes(lane) / (float)n;
    for (uint32_t i = 0; i < n; i++)
        square[i % 16] += (x[i] - mean) * (x[i] - mean);
    float inverse = 1.0f / sqrtf(sum_of_lanes(square) / (float)n + eps);
    for (uint32_t i = 0; i < n; i++)
        y[i] = (x[i] - mean) * inverse * weight[i] + bias[i];
}

void soft_cap(float *x, uint32_t n, float cap)
{
    for (uint32_t i = 0; i < n; i++)
        x[i] = cap * kernel_tanhf(x[i] / cap);
}
