/*
 * bench_memory: memory of the bench programs, in huge pages where there are any, as the engine's segments are.
 */
#ifndef QUIRE_BENCH_MEMORY_H
#define QUIRE_BENCH_MEMORY_H

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/must.h"

/* Whole pages, each byte `value`; never NULL. The caller frees it. */
static inline void *bench_allocate(size_t bytes, int value)
{
    const size_t huge = 2 << 20, page = bytes < huge ? 4096 : huge;
    void *memory = aligned_alloc(page, (bytes + page - 1) / page * page);
    must(memory);
    int ignored = madvise(memory, bytes, MADV_HUGEPAGE);
    (void)ignored;
    memset(memory, value, bytes);
    return memory;
}

#endif
