/*
 * fsck: looks at a server's shared memory and says what in it is not as it must be. It maps for reading, and changes nothing; the next
 * server's adoption drops what is damaged, or all of it.
 *
 *  1. the header is whole and of this program's version, and every segment has the size that follows from it
 *  2. a page is in one of the states; one that was ever taken has a generation, and class and node are those of its number
 *  3. what a sealed or cached page says of itself fits its checksum
 *  4. the parent of a sealed or cached page exists, and while it is what was meant, and sealed, it is the same tenant's and of class 0;
 *     a window's page has one, which holds the same tokens
 *  5. a session slot is in one of the states; a live or kept session has fields in bounds, and its facts and tokens fit their checksums
 *  6. a live session's row names, of each class, pages that exist, are of that class and of no generation that is yet to come; it may
 *     name none where no window looks any more
 *  7. no page that is being filled stands in two rows
 *  8. weights are called whole only of nodes that there are
 *
 * A dead server's memory satisfies all of them at every instant of its death. A live one's may be seen in the middle of a change: look again.
 */
#ifndef QUIRE_SHM_FSCK_H
#define QUIRE_SHM_FSCK_H

#include <stdint.h>

#include "base/err.h"
#include "shm/segment.h"

enum { FSCK_RULES = 8 };

struct fsck_report {
    uint32_t pages, sealed, sessions; /* looked at; sealed or cached; live or kept */
    uint32_t faults[FSCK_RULES + 1];  /* by number of the rule */
};

/* Called for each fault: the rule's number and a sentence. */
typedef void (*fsck_fault_fn)(void *arg, uint32_t rule, const char *sentence);

/* ERR_INVALID: there is no such memory. Everything else that is wrong is a fault. */
enum err fsck_run(struct fsck_report *out, const struct segment_home *home, fsck_fault_fn fault, void *arg,
                  struct why *why);

uint32_t fsck_faults(const struct fsck_report *report);

#endif
