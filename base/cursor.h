/*
 * cursor: reads bytes in order and never beyond the end. After the first read that does not fit, `bad` is set, every
 * further read gives zeros, and the caller checks once.
 */
#ifndef QUIRE_BASE_CURSOR_H
#define QUIRE_BASE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct cursor {
    const uint8_t *base;
    size_t length; /* bytes at base */
    size_t at;     /* bytes read */
    bool bad;      /* a read went beyond the end */
};

static inline struct cursor cursor_over(const void *base, size_t length)
{
    return (struct cursor){.base = base, .length = length};
}

/* The next `bytes` bytes, or NULL. */
static inline const uint8_t *cursor_take(struct cursor *c, uint64_t bytes)
{
    if (c->bad || bytes > c->length - c->at) {
        c->bad = true;
        return NULL;
    }
    const uint8_t *p = c->base + c->at;
    c->at += (size_t)bytes;
    return p;
}

#define CURSOR_READER(type, name)                        \
    static inline type cursor_##name(struct cursor *c)   \
    {                                                    \
        type value = 0;                                  \
        const uint8_t *p = cursor_take(c, sizeof value); \
        if (p)                                           \
            memcpy(&value, p, sizeof value);             \
        return value;                                    \
    }
CURSOR_READER(uint8_t, u8)
CURSOR_READER(uint16_t, u16)
CURSOR_READER(uint32_t, u32)
CURSOR_READER(uint64_t, u64)
CURSOR_READER(float, f32)
#undef CURSOR_READER

#endif
