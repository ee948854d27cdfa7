#include "shm/crc32c.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

enum { POLYNOMIAL_REFLECTED = (int)0x82f63b78u };

/* One entry a byte value; made when first asked for. Two threads that make it at once write the same. */
static _Atomic uint32_t table[256];
static _Atomic bool table_made;

static void make_table(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? (uint32_t)POLYNOMIAL_REFLECTED : 0);
        atomic_store_explicit(&table[byte], crc, memory_order_relaxed); /* published by table_made */
    }
    atomic_store_explicit(&table_made, true, memory_order_release); /* pairs with the acquire in crc32c_by_table */
}

uint32_t crc32c_by_table(uint32_t crc, const void *bytes, size_t length)
{
    if (!atomic_load_explicit(&table_made, memory_order_acquire)) /* pairs with the release in make_table */
        make_table();
    const uint8_t *p = bytes;
    crc = ~crc;
    while (length--) {
        uint32_t entry = atomic_load_explicit(&table[(crc ^ *p++) & 0xff], memory_order_relaxed); /* made before */
        crc = crc >> 8 ^ entry;
    }
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_by_sse(uint32_t crc, const uint8_t *p, size_t length)
{
    uint64_t wide = ~crc;
    for (; length >= 8; length -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, sizeof word);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = (uint32_t)wide;
    while (length--)
        crc = _mm_crc32_u8(crc, *p++);
    return ~crc;
}
#endif

uint32_t crc32c(uint32_t crc, const void *bytes, size_t length)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return crc32c_by_sse(crc, bytes, length);
#endif
    return crc32c_by_table(crc, bytes, length);
}
