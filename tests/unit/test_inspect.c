/* The memory of a live or dead server as people see it: right counts, and no trust in what a dead one left. */
#include "shm/inspect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "shm/barrier.h"
#include "shm/sequence_table.h"
#include "tests/support/small_arena.h"

struct fixture {
    struct arena *arena;
    struct page_pool *pool;
    struct session_slots *slots;
};

/* A server in the middle of its work. */
static int open_server(void **state)
{
    static struct fixture f;
    f.arena = small_arena();
    must(page_pool_open(&f.pool, f.arena, NULL) == OK);
    must(session_slots_open(&f.slots, f.arena, NULL) == OK);
    arena_set_state(f.arena, ARENA_SERVING);
    uint32_t slot = session_slots_take(f.slots);
    struct session_slot *s = session_at(f.arena, slot);
    strcpy(s->id, "chatcmpl-1");
    s->sampling.prompt_tokens = 17;
    session_commit(s, (struct session_progress){.tokens = 18, .kv = 17});
    sequence_row_begin(f.arena, slot, atomic_load(&s->generation));
    for (uint32_t i = 0; i < 2; i++)
        must(sequence_row_append(f.arena, slot, 0, page_pool_name(f.pool, page_pool_take(f.pool, 0, 0))) == OK);
    must(worker_slot_enter(f.arena, 3, worker_slot_prepare(f.arena, 3, 0), NULL) == OK);
    barrier_set_epoch(f.arena, 1, 6);
    *state = &f;
    return 0;
}

static int close_server(void **state)
{
    struct fixture *f = *state;
    worker_slot_leave(f->arena, 3);
    session_slots_close(f->slots);
    page_pool_close(f->pool);
    small_arena_close(f->arena);
    return 0;
}

static void a_running_server_is_shown_as_it_is(void **state)
{
    struct fixture *f = *state;
    struct inspection in;
    assert_int_equal(inspection_read(&in, &f->arena->home, NULL), OK);
    assert_int_equal(in.state, ARENA_SERVING);
    assert_int_equal(in.owner_pid, getpid());
    assert_int_equal(in.model_hash, SMALL_MODEL_HASH);
    assert_int_equal(in.page_count, 40);
    assert_int_equal(in.pages_by_state[PAGE_FREE], 38);
    assert_int_equal(in.pages_by_state[PAGE_FILLING], 2);
    assert_int_equal(in.group_epochs[1], 6);
    assert_int_equal(in.session_count, 1);
    assert_string_equal(in.sessions[0].id, "chatcmpl-1");
    assert_int_equal(in.sessions[0].tokens, 18);
    assert_int_equal(in.sessions[0].pages, 2);
    assert_int_equal(in.worker_count, 1);
    assert_int_equal(in.workers[0].slot, 3);
    assert_true(in.workers[0].alive);
    assert_int_equal(in.workers[0].event_count, 1);
    inspection_fini(&in);
}

static void the_text_names_what_people_look_for(void **state)
{
    struct fixture *f = *state;
    struct inspection in;
    char *text = NULL;
    size_t length;
    FILE *to = open_memstream(&text, &length);
    assert_int_equal(inspection_read(&in, &f->arena->home, NULL), OK);
    inspection_print(&in, to);
    fclose(to);
    assert_non_null(strstr(text, "serving"));
    assert_non_null(strstr(text, "38 free"));
    assert_non_null(strstr(text, "chatcmpl-1"));
    assert_non_null(strstr(text, "worker 3.1"));
    assert_non_null(strstr(text, "entered"));
    free(text);
    inspection_fini(&in);
}

/* Both in slot 3; what a joined worker's words say is group 0 and rank 0, too. */
static void a_spare_is_told_from_the_rank_that_it_becomes(void **state)
{
    struct fixture *f = *state;
    struct inspection in;
    struct barrier barrier;
    for (int joined = 0; joined < 2; joined++) {
        char *text = NULL;
        size_t length;
        if (joined)
            assert_int_equal(barrier_join(&barrier, f->arena, 0, 1, 0, 1, (uint32_t[]){3}, 1, NULL), OK);
        FILE *to = open_memstream(&text, &length);
        assert_int_equal(inspection_read(&in, &f->arena->home, NULL), OK);
        inspection_print(&in, to);
        fclose(to);
        assert_int_equal(in.workers[0].spare, !joined);
        assert_int_equal(strstr(text, "  spare  ") != NULL, !joined);
        assert_int_equal(strstr(text, "group 0 rank 0 epoch 1") != NULL, joined);
        free(text);
        inspection_fini(&in);
    }
}

static void where_there_is_no_server_that_is_said(void **state)
{
    (void)state;
    struct segment_home home;
    struct inspection in;
    struct why why = {""};
    assert_int_equal(segment_home_init(&home, "no-such-server", NULL, NULL), OK);
    assert_int_equal(inspection_read(&in, &home, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "no-such-server"));
}

static void random_damage_never_hurts_the_one_who_looks(void **state)
{
    struct fixture *f = *state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srandom(seed);
    FILE *nowhere = fopen("/dev/null", "w");
    uint8_t *table = malloc(f->arena->table.bytes), *sessions = malloc(f->arena->sessions.bytes);
    memcpy(table, f->arena->table.base, f->arena->table.bytes);
    memcpy(sessions, f->arena->sessions.base, f->arena->sessions.bytes);
    for (int round = 0; round < 300; round++) {
        for (int i = 0; i < 20; i++) {
            f->arena->table.base[256 + (size_t)random() % (f->arena->table.bytes - 256)] = (uint8_t)random();
            f->arena->sessions.base[(size_t)random() % f->arena->sessions.bytes] = (uint8_t)random();
        }
        struct inspection in;
        assert_int_equal(inspection_read(&in, &f->arena->home, NULL), OK);
        inspection_print(&in, nowhere);
        inspection_fini(&in);
    }
    memcpy(f->arena->table.base, table, f->arena->table.bytes);
    memcpy(f->arena->sessions.base, sessions, f->arena->sessions.bytes);
    free(table);
    free(sessions);
    fclose(nowhere);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_server, close_server)
    const struct CMUnitTest tests[] = {
        TEST(a_running_server_is_shown_as_it_is),
        TEST(the_text_names_what_people_look_for),
        TEST(a_spare_is_told_from_the_rank_that_it_becomes),
        cmocka_unit_test(where_there_is_no_server_that_is_said),
        TEST(random_damage_never_hurts_the_one_who_looks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
