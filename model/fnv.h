/* fnv: FNV-1a, 64 bits: says whether two headers are the same, not whether anybody meant them to be. http://www.isthe.com/chongo/tech/comp/fnv/ */
#ifndef QUIRE_MODEL_FNV_H
#define QUIRE_MODEL_FNV_H

#include <stddef.h>
#include <stdint.h>

#define FNV_START 0xcbf29ce484222325u

static inline uint64_t fnv_bytes(uint64_t hash, const void *bytes, size_t length)
{
    const uint8_t *p = bytes;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ p[i]) * 0x100000001b3u;
    return hash;
}

/* A few bytes from the middle of a tensor: two trainings of one model differ in nothing else. */
static inline uint64_t fnv_middle(uint64_t hash, const uint8_t *data, uint64_t bytes)
{
    uint64_t middle = bytes / 2, left = bytes - middle;
    return fnv_bytes(hash, data + middle, (size_t)(left < 64 ? left : 64));
}

#endif
