/*
 * small_arena: a little shared memory of its own for one test program: named after the test's process, removed at the
 * end.
 */
#ifndef QUIRE_TESTS_SUPPORT_SMALL_ARENA_H
#define QUIRE_TESTS_SUPPORT_SMALL_ARENA_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/must.h"
#include "shm/arena.h"
#include "shm/instance.h"

#define SMALL_MODEL_HASH 0x1234567890abcdefull

static inline struct arena_geometry small_geometry(void)
{
    return (struct arena_geometry){
        .page_classes = 1,
        .nodes = 1,
        .groups = 2,
        .worker_slots = 8,
        .session_slots = 6,
        .context = 100,
        .mask_words = 3,
        .result_rows = 8,
        .pages_per_node = {40},
        .page_bytes = {256},
        .model_bytes = 24,
        .weights_bytes = 8192,
        .work_bytes = 1000,
    };
}

static const char small_model[24] = "what the workers build";

static inline struct segment_home small_home(void)
{
    struct segment_home home;
    char name[INSTANCE_NAME_MAX + 1];
    snprintf(name, sizeof name, "test-%d", (int)getpid());
    must(segment_home_init(&home, name, NULL, NULL) == OK);
    return home;
}

static inline void forget_small_arena(void)
{
    struct instance instance;
    struct leftovers dropped;
    struct segment_home home = small_home();
    if (instance_hold(&instance, home.name, NULL, NULL) == OK) {
        instance_clear(&instance, &dropped, NULL);
        instance_release(&instance);
    }
}

/* An arena of that geometry. Release with small_arena_close. */
static inline struct arena *arena_of(const struct arena_geometry *geometry)
{
    struct why why = {""};
    struct segment_home home = small_home();
    struct arena *a = malloc(sizeof *a);
    must(a);
    log_set_level(LOG_WARN);
    forget_small_arena(); /* of a test before that broke off */
    if (arena_create(a, &home, geometry, SMALL_MODEL_HASH, small_model, &why) != OK) {
        fprintf(stderr, "%s\n", why.text);
        abort();
    }
    return a;
}

static inline struct arena *small_arena(void)
{
    struct arena_geometry geometry = small_geometry();
    return arena_of(&geometry);
}

static inline void small_arena_close(struct arena *a)
{
    arena_detach(a);
    free(a);
    forget_small_arena();
}

#endif
