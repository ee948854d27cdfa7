/*
 * attach: a worker's view of a server's shared memory, checked once: the arena fits this program, the model fits the arena.
 * Whatever comes out of here is a private copy that no other process can change any more.
 */
#ifndef QUIRE_WORKER_ATTACH_H
#define QUIRE_WORKER_ATTACH_H

#include <stdbool.h>

#include "base/err.h"
#include "model/served_model.h"
#include "shm/arena.h"

struct attachment {
    struct arena arena;
    bool borrowed; /* mapped by somebody else in this process, who unmaps it */
    struct served_model served;
};

/* Maps table, sessions and slots of the server at home. */
enum err attach_open(struct attachment *at, const struct segment_home *home, struct why *why);

/*
 * The same over an arena of this process that has joined its group, with everything writable that a builder writes: for threads of
 * one program. Sealing and joining are then its owner's affair.
 */
enum err attach_borrow(struct attachment *at, const struct arena *arena, struct why *why);

/* Maps what the group needs; its weights for writing while they are not whole. Harmless when it is mapped so already. */
enum err attach_join(struct attachment *at, uint32_t group, struct why *why);

/* The weights are whole: no write from here on. */
enum err attach_seal(struct attachment *at, struct why *why);

void attach_close(struct attachment *at);

#endif
