/*
 * model_rig: a model in ordinary memory and a group of ranks as threads, for tests of the forward pass.
 *
 * Meetings are a pthread barrier; pages are malloc'ed, filled with NaNs before use, so that reading a slot that nobody
 * wrote shows.
 */
#ifndef QUIRE_TESTS_MODEL_RIG_H
#define QUIRE_TESTS_MODEL_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include "model/forward.h"
#include "model/gguf.h"
#include "model/model.h"

enum { RIG_CAPACITY = 256 };

struct rig {
    struct gguf *g;
    struct model m;
    uint8_t *weights;
};

/* Opens $QUIRE_FIXTURES/<file> or ../shared/fixtures/<file>; "models/…" stands in the repository. False: it is not there. */
bool rig_find(const char *file, char path[512]);
/* Plans and builds the whole model. False: the file is not there; anything else wrong ends the test. */
bool rig_open(struct rig *rig, const char *file, uint32_t context);
/* The same with float weights made smaller, as --quantize does; NULL: as they are. */
bool rig_open_quantised(struct rig *rig, const char *file, uint32_t context, const char *quantize);
void rig_close(struct rig *rig);

/*
 * One sequence: its tokens, and pages for all of them. A step gets no window page that no position of it sees, so that reading one
 * is a crash.
 */
struct sequence {
    const uint32_t *ids;
    uint32_t count;
    uint32_t done; /* tokens whose K and V are in pages */
    uint8_t **pages[MODEL_PAGE_CLASSES];
    uint8_t **seen; /* those of the window's that the step at hand is given */
    uint32_t page_count;
    size_t page_bytes[MODEL_PAGE_CLASSES];
};

struct sequence sequence_make(const struct rig *rig, const uint32_t *ids, uint32_t count);
void sequence_free(struct sequence *s);
/* Every page as nobody's: full of NaNs. */
void sequence_spoil(struct sequence *s);
/* The first `done` positions of both hold the same K and V, bit for bit. */
bool sequences_agree(const struct rig *rig, const struct sequence *a, const struct sequence *b);

struct engine {
    const struct rig *rig;
    uint32_t ranks, epoch;
    struct forward *f[8];
    uint8_t *shared_memory;
    struct shared_buffers shared;
};

struct engine engine_open(const struct rig *rig, const struct kernels *k, uint32_t ranks);
void engine_close(struct engine *e);

/*
 * One step: the next take[i] tokens of sequence i, for all i with take[i] > 0. logits[i] (may be NULL) receives
 * (take[i], vocab) floats: a row for each of its tokens.
 */
void engine_step(struct engine *e, struct sequence *sequences, const uint32_t *take, uint32_t count,
                 float *const *logits);

/* The whole rest of one sequence in steps of at most `chunk` tokens; logits (rest, vocab). */
void engine_feed(struct engine *e, struct sequence *s, uint32_t chunk, float *logits);

#endif
