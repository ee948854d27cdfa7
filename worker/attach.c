/* attach: see attach.h. */
#include "worker/attach.h"

#include <string.h>

static enum err misfit(struct why *why, const char *what, uint64_t has, uint64_t needs)
{
    return because(why, ERR_FORMAT, "shared memory does not fit its model: %s has %llu bytes, %llu are needed", what,
                   (unsigned long long)has, (unsigned long long)needs);
}

/* The model came through shared memory: it is copied first, then the copy is checked and held against the geometry. */
static enum err take_served_model(struct attachment *at, struct why *why)
{
    const struct arena_geometry *g = &at->arena.geometry;
    struct served_model *s = &at->served;
    if (g->model_bytes != sizeof *s)
        return because(why, ERR_FORMAT,
                       "shared memory was made by another build: its model block has %llu bytes, this one's has %zu",
                       (unsigned long long)g->model_bytes, sizeof *s);
    memcpy(s, arena_model(&at->arena), sizeof *s);
    enum err err = served_model_check(s, why);
    if (err != OK)
        return err;
    if (g->page_classes != model_page_classes(&s->model) || g->window != model_page_window(&s->model))
        return because(
            why, ERR_FORMAT,
            "shared memory does not fit its model: %u classes of pages and a window of %u, %u and %u are needed",
            g->page_classes, g->window, model_page_classes(&s->model), model_page_window(&s->model));
    for (uint32_t c = 0; c < g->page_classes; c++)
        if (g->page_bytes[c] < model_page_bytes(&s->model, c))
            return misfit(why, "a page", g->page_bytes[c], model_page_bytes(&s->model, c));
    if (g->weights_bytes < s->model.weights_bytes)
        return misfit(why, "the block of weights", g->weights_bytes, s->model.weights_bytes);
    if (g->work_bytes < served_model_work_bytes(s))
        return misfit(why, "the work space of a group", g->work_bytes, served_model_work_bytes(s));
    return OK;
}

enum err attach_open(struct attachment *at, const struct segment_home *home, struct why *why)
{
    memset(at, 0, sizeof *at);
    enum err err = arena_attach(&at->arena, home, false, why);
    if (err != OK)
        return err;
    err = take_served_model(at, why);
    if (err != OK)
        arena_detach(&at->arena);
    return err;
}

enum err attach_borrow(struct attachment *at, const struct arena *arena, struct why *why)
{
    memset(at, 0, sizeof *at);
    at->arena = *arena;
    at->borrowed = true;
    return take_served_model(at, why);
}

enum err attach_join(struct attachment *at, uint32_t group, struct why *why)
{
    struct arena *a = &at->arena;
    if (group >= a->geometry.groups)
        return because(why, ERR_INVALID, "there is no group %u: this server has %u", group, a->geometry.groups);
    bool build = !arena_weights_built(a, a->geometry.group_node[group]);
    if (a->group == group && (!build || a->weights.access == SEGMENT_WRITE))
        return OK;
    if (at->borrowed)
        return because(why, ERR_INVALID, "group %u was not joined by whoever lent the memory", group);
    return arena_join(a, group, build, why);
}

enum err attach_seal(struct attachment *at, struct why *why)
{
    return at->borrowed ? OK : arena_seal_weights(&at->arena, why);
}

void attach_close(struct attachment *at)
{
    if (!at->borrowed)
        arena_detach(&at->arena);
}
