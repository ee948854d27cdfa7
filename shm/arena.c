#include "shm/arena.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "shm/crc32c.h"
#include "shm/room.h"

enum { NO_GROUP = UINT32_MAX };

static struct arena_header *header_of(const struct arena *a)
{
    return (struct arena_header *)(void *)a->table.base;
}

const struct arena_header *arena_header(const struct arena *a)
{
    return header_of(a);
}

const void *arena_model(const struct arena *a)
{
    return a->table.base + a->layout.model_at;
}

uint64_t process_start_time(int32_t pid)
{
    char path[48], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    const char *p = strrchr(text, ')'); /* the name before it may hold anything, spaces and parentheses too */
    for (int field = 3; p && field <= 22; field++) {
        p = strchr(p, ' ');
        if (p)
            p++;
    }
    return p ? strtoull(p, NULL, 10) : 0;
}

/* All zeros where the kernel does not say. */
static void read_boot_id(uint8_t out[16])
{
    memset(out, 0, 16);
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (!f)
        return;
    unsigned digits = 0;
    for (int c; digits < 32 && (c = fgetc(f)) != EOF;)
        if (isxdigit(c)) {
            int value = isdigit(c) ? c - '0' : tolower(c) - 'a' + 10;
            out[digits / 2] = (uint8_t)(out[digits / 2] << 4 | value);
            digits++;
        }
    fclose(f);
}

static uint32_t header_crc(const struct arena_header *h)
{
    uint8_t frozen[offsetof(struct arena_header, state)];
    memcpy(frozen, h, sizeof frozen);
    memset(frozen + offsetof(struct arena_header, crc), 0, sizeof h->crc);
    return crc32c(0, frozen, sizeof frozen);
}

static void claim(struct arena *a)
{
    struct arena_header *h = header_of(a);
    /* Relaxed: for people and messages; the flock is what says who owns the memory. */
    atomic_store_explicit(&h->owner_pid, (uint32_t)getpid(), memory_order_relaxed);                      /* see above */
    atomic_store_explicit(&h->owner_start, process_start_time((int32_t)getpid()), memory_order_relaxed); /* see above */
    atomic_store_explicit(&h->started_us, now_us(), memory_order_relaxed);                               /* see above */
    atomic_fetch_add_explicit(&h->generation, 1, memory_order_relaxed);                                  /* see above */
}

static const uint8_t may_follow[] = {
    [ARENA_BUILDING] = 1u << ARENA_SERVING,
    [ARENA_SERVING] = 1u << ARENA_ENDED | 1u << ARENA_ADOPTING,
    [ARENA_ADOPTING] = 1u << ARENA_SERVING | 1u << ARENA_ADOPTING,
    [ARENA_ENDED] = 1u << ARENA_ADOPTING,
};

enum arena_state arena_state(const struct arena *a)
{
    uint32_t state = atomic_load_explicit(&header_of(a)->state, memory_order_acquire); /* pairs with arena_set_state */
    return (enum arena_state)state;
}

void arena_set_state(struct arena *a, enum arena_state state)
{
    must(a->table.access == SEGMENT_WRITE);
    enum arena_state now = arena_state(a);
    must(now <= ARENA_ENDED && (may_follow[now] >> state & 1));
    /* Who sees SERVING sees everything that was made before it. */
    atomic_store_explicit(&header_of(a)->state, (uint32_t)state, memory_order_release); /* pairs with arena_state */
}

void arena_mark_weights_built(struct arena *a, uint32_t node)
{
    must(a->table.access == SEGMENT_WRITE && node < a->geometry.nodes);
    atomic_fetch_or_explicit(
        &header_of(a)->weights_built, 1ull << node,
        memory_order_release); /* after the builders' reports; pairs with the next coordinator's load */
}

bool arena_weights_built(const struct arena *a, uint32_t node)
{
    must(node < a->geometry.nodes);
    uint64_t built =
        atomic_load_explicit(&header_of(a)->weights_built, memory_order_acquire); /* of the marker's release */
    return built >> node & 1;
}

static const char *numbered(char out[SEGMENT_WHAT_MAX], const char *kind, uint32_t number)
{
    snprintf(out, SEGMENT_WHAT_MAX, "%s.%u", kind, number);
    return out;
}

static void write_header(struct arena *a, uint64_t model_hash)
{
    struct arena_header *h = header_of(a);
    memcpy(h->magic, ARENA_MAGIC, sizeof h->magic);
    h->header_version = HEADER_VERSION;
    h->header_bytes = HEADER_BYTES;
    h->layout_version = LAYOUT_VERSION;
    h->model_hash = model_hash;
    read_boot_id(h->boot_id);
    h->geometry = a->geometry;
    h->crc = header_crc(h);
    must(getrandom(h->secret, sizeof h->secret, 0) == sizeof h->secret);
}

/* Made, reserved and touched here; mapped by workers only. */
static enum err make_for_workers(struct arena *a, const char *kind, uint32_t number, uint64_t bytes, int node,
                                 bool *huge, struct why *why)
{
    struct segment s;
    char what[SEGMENT_WHAT_MAX];
    enum err err = segment_create(&s, &a->home, numbered(what, kind, number), bytes, node, why);
    if (err != OK)
        return err;
    *huge = segment_populate(&s);
    segment_detach(&s);
    return OK;
}

static void remove_all(struct arena *a)
{
    char what[SEGMENT_WHAT_MAX];
    arena_detach(a);
    segment_remove(&a->home, "table", NULL); /* first: without it nobody adopts the rest */
    segment_remove(&a->home, "sessions", NULL);
    segment_remove(&a->home, "slots", NULL);
    for (uint32_t n = 0; n < a->geometry.nodes; n++) {
        segment_remove(&a->home, numbered(what, "pages", n), NULL);
        segment_remove(&a->home, numbered(what, "weights", n), NULL);
    }
    for (uint32_t g = 0; g < a->geometry.groups; g++)
        segment_remove(&a->home, numbered(what, "work", g), NULL);
}

static enum err begin(struct arena *a, const struct segment_home *home, const struct arena_geometry *geometry,
                      struct why *why)
{
    memset(a, 0, sizeof *a);
    a->home = *home;
    a->geometry = *geometry;
    a->group = NO_GROUP;
    return layout_of(geometry, &a->layout, why);
}

enum err arena_create(struct arena *a, const struct segment_home *home, const struct arena_geometry *geometry,
                      uint64_t model_hash, const void *model, struct why *why)
{
    enum err err = begin(a, home, geometry, why);
    if (err != OK)
        return err;
    const struct arena_geometry *g = &a->geometry;
    bool huge = false, unused;

    err = room_check(home->directory, a->layout.total_bytes, why); /* before others lose what they need */
    if (err != OK)
        return err;
    err = segment_create(&a->table, home, "table", a->layout.table_bytes, -1, why);
    if (err != OK)
        return err; /* the name exists: what is there belongs to somebody else */
    err = segment_create(&a->sessions, home, "sessions", a->layout.sessions_bytes, -1, why);
    if (err == OK)
        err = segment_create(&a->slots, home, "slots", a->layout.slots_bytes, -1, why);
    for (uint32_t n = 0; err == OK && n < g->nodes; n++) {
        int node = g->nodes > 1 ? g->os_node[n] : -1;
        err = make_for_workers(a, "pages", n, a->layout.pages_bytes, node, &huge, why);
        if (err == OK)
            err = make_for_workers(a, "weights", n, g->weights_bytes, node, &unused, why);
    }
    for (uint32_t group = 0; err == OK && group < g->groups; group++) {
        int node = g->nodes > 1 ? g->os_node[g->group_node[group]] : -1;
        err = make_for_workers(a, "work", group, a->layout.group_work_bytes, node, &unused, why);
    }
    if (err != OK) {
        remove_all(a);
        return err;
    }
    segment_populate(&a->table);
    segment_populate(&a->sessions);
    segment_populate(&a->slots);
    if (!huge)
        log_info(
            "shared memory is in 4 KiB pages; in huge ones (Linux 6.1, or as deploy/README.md says) large models are quicker");
    if (g->model_bytes)
        memcpy(a->table.base + a->layout.model_at, model, g->model_bytes);
    write_header(a, model_hash);
    claim(a);
    return OK;
}

/* What every reader asks before it believes another word. */
static enum err check_header(const struct segment *table, const char *name, struct why *why)
{
    if (table->bytes < HEADER_BYTES)
        return because(why, ERR_FORMAT, "the memory of server \"%s\" is too short for a header", name);
    const struct arena_header *h = (const struct arena_header *)(const void *)table->base;
    if (memcmp(h->magic, ARENA_MAGIC, sizeof h->magic) != 0)
        return because(why, ERR_FORMAT, "the memory of server \"%s\" was not finished by a server", name);
    if (h->header_version != HEADER_VERSION || h->header_bytes != HEADER_BYTES)
        return because(why, ERR_FORMAT, "the memory of server \"%s\" has header version %u, this program reads %u",
                       name, h->header_version, HEADER_VERSION);
    if (h->crc != header_crc(h))
        return because(why, ERR_FORMAT, "the header of server \"%s\" is damaged: checksum %08x, computed %08x", name,
                       h->crc, header_crc(h));
    if (h->layout_version != LAYOUT_VERSION)
        return because(why, ERR_FORMAT, "the memory of server \"%s\" has layout version %u, this program reads %u",
                       name, h->layout_version, LAYOUT_VERSION);
    return OK;
}

/* Names the first size in which they differ. */
static enum err check_same_sizes(const char *name, const struct arena_geometry *has, const struct arena_geometry *wants,
                                 struct why *why)
{
    const struct {
        const char *what;
        uint64_t has, wants;
    } sizes[] = {
        {"memory nodes", has->nodes, wants->nodes},
        {"worker groups (--groups)", has->groups, wants->groups},
        {"worker slots (--workers, --spares)", has->worker_slots, wants->worker_slots},
        {"session slots (--session-slots)", has->session_slots, wants->session_slots},
        {"tokens of context (--ctx)", has->context, wants->context},
        {"pages on a node (--kv-memory)", has->pages_per_node[0], wants->pages_per_node[0]},
        {"bytes in a page", has->page_bytes[0], wants->page_bytes[0]},
    };
    if (memcmp(has, wants, sizeof *has) == 0)
        return OK;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        if (sizes[i].has != sizes[i].wants)
            return because(why, ERR_FORMAT,
                           "the memory of server \"%s\" has other sizes than asked for now: %llu %s, not %llu", name,
                           (unsigned long long)sizes[i].has, sizes[i].what, (unsigned long long)sizes[i].wants);
    return because(why, ERR_FORMAT, "the memory of server \"%s\" has other sizes than asked for now", name);
}

static enum err check_same_server(const struct arena *a, uint64_t model_hash, const void *model, struct why *why)
{
    const struct arena_header *h = header_of(a);
    uint8_t boot_id[16];
    read_boot_id(boot_id);
    if (memcmp(h->boot_id, boot_id, sizeof boot_id) != 0)
        return because(why, ERR_FORMAT, "the memory of server \"%s\" is from before the machine started", a->home.name);
    enum arena_state state = arena_state(a);
    if (state != ARENA_SERVING && state != ARENA_ENDED && state != ARENA_ADOPTING)
        return because(why, ERR_FORMAT, "the memory of server \"%s\" was left half-made", a->home.name);
    uint32_t takeovers = atomic_load_explicit(&h->takeovers, memory_order_relaxed); /* its writer is dead */
    if (takeovers >= TAKEOVERS_MOST)
        return because(why, ERR_FORMAT, "%u servers in a row died with the memory of server \"%s\"", takeovers,
                       a->home.name);
    if (h->model_hash != model_hash)
        return because(
            why, ERR_FORMAT,
            "the memory of server \"%s\" belongs to another model, build or arithmetic (hash %016llx, now %016llx)",
            a->home.name, (unsigned long long)h->model_hash, (unsigned long long)model_hash);
    enum err err = check_same_sizes(a->home.name, &h->geometry, &a->geometry, why);
    if (err != OK)
        return err;
    if (a->table.bytes != a->layout.table_bytes)
        return because(why, ERR_FORMAT, "the table of server \"%s\" has %llu bytes where %llu are expected",
                       a->home.name, (unsigned long long)a->table.bytes, (unsigned long long)a->layout.table_bytes);
    if (a->geometry.model_bytes && memcmp(arena_model(a), model, a->geometry.model_bytes) != 0)
        return because(why, ERR_FORMAT, "the memory of server \"%s\" describes its model differently", a->home.name);
    return OK;
}

/* Segments that only workers map are there and have their size. */
static enum err check_others(const struct arena *a, struct why *why)
{
    const struct arena_geometry *g = &a->geometry;
    enum err err = OK;
    struct segment s;
    char what[SEGMENT_WHAT_MAX];
    for (uint32_t n = 0; err == OK && n < g->nodes; n++) {
        err = segment_attach(&s, &a->home, numbered(what, "pages", n), a->layout.pages_bytes, SEGMENT_READ, why);
        segment_detach(&s);
        if (err == OK)
            err = segment_attach(&s, &a->home, numbered(what, "weights", n), g->weights_bytes, SEGMENT_READ, why);
        segment_detach(&s);
    }
    for (uint32_t group = 0; err == OK && group < g->groups; group++) {
        err =
            segment_attach(&s, &a->home, numbered(what, "work", group), a->layout.group_work_bytes, SEGMENT_READ, why);
        segment_detach(&s);
    }
    return err;
}

enum err arena_adopt(struct arena *a, const struct segment_home *home, const struct arena_geometry *geometry,
                     uint64_t model_hash, const void *model, struct why *why)
{
    enum err err = begin(a, home, geometry, why);
    if (err != OK)
        return err;
    err = segment_attach(&a->table, home, "table", 0, SEGMENT_WRITE, why);
    if (err == OK)
        err = check_header(&a->table, home->name, why);
    if (err == OK)
        err = check_same_server(a, model_hash, model, why);
    if (err == OK)
        err = segment_attach(&a->sessions, home, "sessions", a->layout.sessions_bytes, SEGMENT_WRITE, why);
    if (err == OK)
        err = segment_attach(&a->slots, home, "slots", a->layout.slots_bytes, SEGMENT_WRITE, why);
    if (err == OK)
        err = check_others(a, why);
    if (err != OK) {
        arena_detach(a);
        return err == ERR_INVALID ? ERR_FORMAT : err; /* a missing segment is a damaged memory */
    }
    arena_set_state(a, ARENA_ADOPTING);
    atomic_fetch_add_explicit(&header_of(a)->takeovers, 1, memory_order_relaxed); /* read only after our death */
    claim(a);
    return OK;
}

void arena_does_well(struct arena *a)
{
    must(a->table.access == SEGMENT_WRITE);
    atomic_store_explicit(&header_of(a)->takeovers, 0, memory_order_relaxed); /* as in arena_adopt */
}

enum err arena_attach(struct arena *a, const struct segment_home *home, bool read_only, struct why *why)
{
    memset(a, 0, sizeof *a);
    a->home = *home;
    a->group = NO_GROUP;
    enum err err = segment_attach(&a->table, home, "table", 0, SEGMENT_READ, why);
    if (err != OK)
        return err;
    err = check_header(&a->table, home->name, why);
    if (err != OK)
        goto detach;
    a->geometry = header_of(a)->geometry;
    err = layout_of(&a->geometry, &a->layout, why);
    if (err != OK)
        goto detach;
    if (a->table.bytes < a->layout.table_bytes) {
        err = because(why, ERR_FORMAT, "the table of server \"%s\" has %llu bytes where %llu are expected", home->name,
                      (unsigned long long)a->table.bytes, (unsigned long long)a->layout.table_bytes);
        goto detach;
    }
    err = segment_attach(&a->sessions, home, "sessions", a->layout.sessions_bytes, SEGMENT_READ, why);
    if (err != OK)
        goto detach;
    err =
        segment_attach(&a->slots, home, "slots", a->layout.slots_bytes, read_only ? SEGMENT_READ : SEGMENT_WRITE, why);
    if (err != OK)
        goto detach;
    return OK;
detach:
    arena_detach(a);
    return err;
}

static void leave_group(struct arena *a)
{
    for (uint32_t n = 0; n < NODES_MAX; n++)
        segment_detach(&a->pages[n]);
    segment_detach(&a->weights);
    segment_detach(&a->work);
    a->group = NO_GROUP;
}

enum err arena_join(struct arena *a, uint32_t group, bool build, struct why *why)
{
    const struct arena_geometry *g = &a->geometry;
    if (group >= g->groups)
        return because(why, ERR_INVALID, "there is no group %u: the server has %u", group, g->groups);
    if (a->group == group && (a->weights.access == SEGMENT_WRITE) == build)
        return OK; /* a new epoch of the same group: everything is mapped */
    leave_group(a);

    enum err err = OK;
    char what[SEGMENT_WHAT_MAX];
    uint32_t own = g->group_node[group];
    for (uint32_t n = 0; err == OK && n < g->nodes; n++)
        err = segment_attach(&a->pages[n], &a->home, numbered(what, "pages", n), a->layout.pages_bytes,
                             n == own ? SEGMENT_WRITE : SEGMENT_READ, why);
    if (err == OK)
        err = segment_attach(&a->weights, &a->home, numbered(what, "weights", own), g->weights_bytes,
                             build ? SEGMENT_WRITE : SEGMENT_READ, why);
    if (err == OK)
        err = segment_attach(&a->work, &a->home, numbered(what, "work", group), a->layout.group_work_bytes,
                             SEGMENT_WRITE, why);
    if (err != OK) {
        leave_group(a);
        return err;
    }
    a->group = group;
    a->touched = 0;
    return OK;
}

bool arena_touch_more(struct arena *a, uint64_t bytes)
{
    struct segment *mapped[NODES_MAX + 2] = {&a->weights, &a->work}; /* in the order in which a step needs them */
    uint32_t count = 2;
    if (a->group == NO_GROUP)
        return false;
    for (uint32_t n = 0; n < a->geometry.nodes; n++)
        mapped[count++] = &a->pages[n];
    uint64_t before = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (a->touched < before + mapped[i]->bytes) {
            uint64_t from = a->touched - before, left = mapped[i]->bytes - from;
            segment_touch(mapped[i], from, bytes);
            a->touched += bytes < left ? bytes : left;
            return true;
        }
        before += mapped[i]->bytes;
    }
    return false;
}

enum err arena_seal_weights(struct arena *a, struct why *why)
{
    return segment_seal(&a->weights, why);
}

void arena_detach(struct arena *a)
{
    leave_group(a);
    segment_detach(&a->slots);
    segment_detach(&a->sessions);
    segment_detach(&a->table);
}

uint8_t *arena_page(const struct arena *a, page_id page)
{
    struct page_place place = page_place(&a->geometry, &a->layout, page);
    must(a->group != NO_GROUP);
    return a->pages[place.node].base + place.offset;
}

uint8_t *arena_weights(const struct arena *a)
{
    must(a->group != NO_GROUP);
    return a->weights.base;
}

uint8_t *arena_work(const struct arena *a)
{
    must(a->group != NO_GROUP);
    return a->work.base + a->layout.results_bytes;
}
