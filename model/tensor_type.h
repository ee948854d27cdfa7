/*
 * tensor_type: the element types of GGUF tensors, one list for numbers, names and block sizes.
 * Numbers and block layouts: ggml's ggml.h (enum ggml_type) and ggml-common.h.
 */
#ifndef QUIRE_MODEL_TENSOR_TYPE_H
#define QUIRE_MODEL_TENSOR_TYPE_H

#include <stdbool.h>
#include <stdint.h>

/* X(name, number, elements in a block, bytes of a block) */
#define TENSOR_TYPES(X)     \
    X(F32, 0, 1, 4)         \
    X(F16, 1, 1, 2)         \
    X(Q4_0, 2, 32, 18)      \
    X(Q4_1, 3, 32, 20)      \
    X(Q5_0, 6, 32, 22)      \
    X(Q5_1, 7, 32, 24)      \
    X(Q8_0, 8, 32, 34)      \
    X(Q8_1, 9, 32, 36)      \
    X(Q2_K, 10, 256, 84)    \
    X(Q3_K, 11, 256, 110)   \
    X(Q4_K, 12, 256, 144)   \
    X(Q5_K, 13, 256, 176)   \
    X(Q6_K, 14, 256, 210)   \
    X(Q8_K, 15, 256, 292)   \
    X(IQ2_XXS, 16, 256, 66) \
    X(IQ2_XS, 17, 256, 74)  \
    X(IQ3_XXS, 18, 256, 98) \
    X(IQ1_S, 19, 256, 50)   \
    X(IQ4_NL, 20, 32, 18)   \
    X(IQ3_S, 21, 256, 110)  \
    X(IQ2_S, 22, 256, 82)   \
    X(IQ4_XS, 23, 256, 136) \
    X(I8, 24, 1, 1)         \
    X(I16, 25, 1, 2)        \
    X(I32, 26, 1, 4)        \
    X(I64, 27, 1, 8)        \
    X(F64, 28, 1, 8)        \
    X(IQ1_M, 29, 256, 56)   \
    X(BF16, 30, 1, 2)       \
    X(TQ1_0, 34, 256, 54)   \
    X(TQ2_0, 35, 256, 66)   \
    X(MXFP4, 39, 32, 17)

enum tensor_type {
#define X(name, number, elements, bytes) TENSOR_##name = (number),
    TENSOR_TYPES(X)
#undef X
};

struct tensor_type_traits {
    const char *name;        /* "Q4_1"; NULL: no such type */
    uint32_t block_elements; /* elements in a block */
    uint32_t block_bytes;
};

/* NULL when GGUF knows no type of that number. */
const struct tensor_type_traits *tensor_type_traits(uint32_t number);

#endif
