/* fake_world_internal: what fake_world.c, fake_workers.c and fake_clients.c share. */
#ifndef QUIRE_TESTS_FAKE_WORLD_INTERNAL_H
#define QUIRE_TESTS_FAKE_WORLD_INTERNAL_H

#include "tests/support/fake_world.h"

/* The model: a hash of all tokens so far, the token that it says then, and how probable that was. */
uint64_t fake_mix(uint64_t hash, uint64_t value);
uint32_t fake_next_token(uint64_t hash, uint64_t seed);
float fake_score_of(uint64_t hash, uint32_t token);
/* Of the client's prompt, all of it. */
uint64_t fake_prompt_hash(const struct client *c);

/* Hooks of the scheduler, as workers answer them. */
void fake_take_plan(void *world, uint32_t group, const struct step_plan *plan);
void fake_take_question(void *world, uint32_t group, uint64_t question, const page_id *pages, uint32_t count);
enum err fake_read_result(void *world, uint32_t group, uint32_t epoch, uint64_t step, uint32_t entry,
                          const struct step_row *row, struct result_entry *out, struct why *why);

#endif
