/*
 * futex: wait and wake on a 32-bit word in shared memory, between processes and threads alike (so not FUTEX_PRIVATE).
 */
#ifndef QUIRE_SHM_FUTEX_H
#define QUIRE_SHM_FUTEX_H

#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Sleeps while *word is `value`, at most timeout_us; may return early for no reason, so the caller looks again. */
static inline void futex_wait(_Atomic uint32_t *word, uint32_t value, uint32_t timeout_us)
{
    struct timespec timeout = {.tv_sec = timeout_us / 1000000u, .tv_nsec = (long)(timeout_us % 1000000u) * 1000};
    syscall(SYS_futex, word, FUTEX_WAIT, value, &timeout, NULL, 0);
}

/* Wakes whoever sleeps on word. */
static inline void futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

#endif
