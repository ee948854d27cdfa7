/*
 * checked: size arithmetic that cannot wrap. Each returns false when the result does not fit; *out is then unspecified.
 * Whatever a file, a socket or another process's memory says about sizes goes through these.
 */
#ifndef QUIRE_BASE_CHECKED_H
#define QUIRE_BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool checked_add(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

static inline bool checked_mul(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

/* Rounds up to a multiple of `to` (a power of two). */
static inline bool checked_round_up(uint64_t a, uint64_t to, uint64_t *out)
{
    if (!checked_add(a, to - 1, out))
        return false;
    *out &= ~(to - 1);
    return true;
}

#endif
