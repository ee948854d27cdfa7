/*
 * utf8: reads one code point at a time out of bytes that may be anything. What is not UTF-8 is cut into maximal
 * subparts, each of which stands for one U+FFFD (Unicode 15, section 3.9, table 3-7 and "U+FFFD substitution").
 */
#ifndef QUIRE_MODEL_UTF8_H
#define QUIRE_MODEL_UTF8_H

#include <stddef.h>
#include <stdint.h>

enum utf8_kind {
    UTF8_GOOD, /* a code point */
    UTF8_BAD,  /* no code point begins here, whatever follows */
    UTF8_CUT,  /* the bytes end within what may become a code point */
};

struct utf8_step {
    enum utf8_kind kind;
    uint32_t code; /* U+FFFD unless GOOD */
    size_t bytes;  /* how many belong together, at least 1 */
};

/* Looks at the first bytes of `at`. Caller gives at least one byte. */
static inline struct utf8_step utf8_step(const void *at, size_t length)
{
    const uint8_t *p = at;
    uint8_t first = p[0];
    if (first < 0x80)
        return (struct utf8_step){UTF8_GOOD, first, 1};
    size_t need = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    if (first < 0xC2 || first > 0xF4)
        return (struct utf8_step){UTF8_BAD, 0xFFFD, 1};
    /* The second byte's range keeps overlong forms, surrogates and what lies above U+10FFFF out. */
    uint8_t low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    uint8_t high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    uint32_t code = first & (0x7Fu >> need);
    for (size_t i = 1; i < need; i++) {
        if (i == length)
            return (struct utf8_step){UTF8_CUT, 0xFFFD, i};
        if (p[i] < low || p[i] > high)
            return (struct utf8_step){UTF8_BAD, 0xFFFD, i};
        code = code << 6 | (p[i] & 0x3Fu);
        low = 0x80;
        high = 0xBF;
    }
    return (struct utf8_step){UTF8_GOOD, code, need};
}

/* Writes a code point below U+110000, gives the bytes written (1 to 4). */
static inline size_t utf8_write(uint32_t code, char out[4])
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t bytes = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = bytes - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (code & 0x3F));
        code >>= 6;
    }
    out[0] = (char)((0xF00u >> bytes) | code);
    return bytes;
}

#endif
