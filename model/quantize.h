/*
 * quantize: floats to GGUF blocks, the plain way: scales from the extremes of each block. Formats:
 * ggml-common.h. Codes are rounded against the scale as stored (f16), so a value is off by half a step at most, but for
 * the clamped end of Q4_0, where it may be one step. Q4_K: the best of a few scales for each 32 values, in the sense of least squares.
 */
#ifndef QUIRE_MODEL_QUANTIZE_H
#define QUIRE_MODEL_QUANTIZE_H

#include <stdbool.h>
#include <stdint.h>

#include "model/tensor_type.h"

/* True for the types that blocks_from_float makes: F32, F16, Q8_0, Q4_0, Q4_K. */
bool blocks_can_be_made(enum tensor_type type);

/*
 * `elements` floats, a multiple of the type's block, into blocks at out (elements / block_elements * block_bytes
 * bytes). False when a value is not finite; out is then unspecified.
 */
bool blocks_from_float(enum tensor_type type, const float *x, uint64_t elements, uint8_t *out);

#endif
