/*
 * must: the assertion words. A failed one is our own mistake, never the user's and never the world's.
 *
 * must(x)          x was proved where it stands; never compiled out; says where and aborts.
 * must_not_reach() the same for a place that no path may reach.
 */
#ifndef QUIRE_BASE_MUST_H
#define QUIRE_BASE_MUST_H

/* Writes one line to stderr and aborts. Async-signal-safe. */
_Noreturn void must_fail(const char *what, const char *file, int line);

#define must(x) ((x) ? (void)0 : must_fail(#x, __FILE__, __LINE__))
#define must_not_reach() must_fail("this place is never reached", __FILE__, __LINE__)

#endif
