/*
 * malloc_count: how many allocations the calling thread makes between two points. Include in the one C file of a test program:
 * it takes the places of malloc and its kin in that program, in front of glibc's own. Under a sanitizer, which has the same
 * places, MALLOC_COUNT_WORKS is 0 and nothing is counted.
 */
#ifndef QUIRE_TESTS_MALLOC_COUNT_H
#define QUIRE_TESTS_MALLOC_COUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define MALLOC_COUNT_WORKS 0
#endif
#endif
#if !defined(MALLOC_COUNT_WORKS) && \
    (defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__))
#define MALLOC_COUNT_WORKS 0
#endif
#if !defined(MALLOC_COUNT_WORKS)
#define MALLOC_COUNT_WORKS 1
#endif

/* volatile: a compiler knows what malloc may touch, and these are not among it */
static _Thread_local volatile bool malloc_counting;
static _Thread_local volatile uint64_t malloc_counted;

static inline void malloc_count_begin(void)
{
    malloc_counted = 0;
    malloc_counting = true;
}

/* Calls of this thread that gave or moved memory since malloc_count_begin. */
static inline uint64_t malloc_count_end(void)
{
    malloc_counting = false;
    return malloc_counted;
}

#if MALLOC_COUNT_WORKS

/* glibc's own, under the names that it keeps for those who stand in front. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

void *malloc(size_t bytes);
void *calloc(size_t count, size_t bytes);
void *realloc(void *memory, size_t bytes);
void *aligned_alloc(size_t alignment, size_t bytes);

void *malloc(size_t bytes)
{
    malloc_counted = malloc_counted + malloc_counting;
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    malloc_counted = malloc_counted + malloc_counting;
    return __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    malloc_counted = malloc_counted + malloc_counting;
    return __libc_realloc(memory, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    malloc_counted = malloc_counted + malloc_counting;
    return __libc_memalign(alignment, bytes);
}

#endif

#endif
