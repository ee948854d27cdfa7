/* The channel between coordinator and workers: who is who, what is refused, and several processes that ask for pages at
 * once. */
#include "proto/channel.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <zmq.h>

#include "base/clock.h"
#include "proto/message.h"
#include "shm/page_pool.h"
#include "tests/support/small_arena.h"

enum { DEADLINE_US = 20 * 1000 * 1000, WAIT_MS = 100 };

struct fixture {
    char directory[64];
    struct channel *router;
};

static int open_router(void **state)
{
    static struct fixture f;
    struct why why = {""};
    snprintf(f.directory, sizeof f.directory, "/tmp/quire-test-channel-%d", (int)getpid());
    if (channel_bind(&f.router, f.directory, &why) != OK)
        fail_msg("%s", why.text);
    *state = &f;
    return 0;
}

static int close_router(void **state)
{
    struct fixture *f = *state;
    channel_close(f->router);
    assert_int_not_equal(access(f->directory, F_OK), 0); /* nothing is left behind */
    return 0;
}

static const struct channel_peer nobody;

/* The next message within the deadline. The event loop's way: read until ERR_BUSY, then sleep on the descriptor. */
static enum err receive_by(struct channel *c, struct channel_peer *from, uint8_t *bytes, size_t room, size_t *length)
{
    uint64_t deadline_us = now_us() + DEADLINE_US;
    while (now_us() < deadline_us) {
        enum err err = channel_receive(c, from, bytes, room, length);
        if (err != ERR_BUSY)
            return err;
        poll(&(struct pollfd){.fd = channel_fd(c), .events = POLLIN}, 1, WAIT_MS);
    }
    return ERR_BUSY;
}

static struct channel *connect_as(struct fixture *f, uint32_t slot, uint32_t generation)
{
    struct channel *c = NULL;
    struct why why = {""};
    if (channel_connect(&c, f->directory, (struct channel_peer){slot, generation}, &why) != OK)
        fail_msg("%s", why.text);
    return c;
}

static void send_text(struct channel *c, struct channel_peer to, const char *text)
{
    assert_int_equal(channel_send(c, to, (const uint8_t *)text, strlen(text)), OK);
}

static void a_worker_is_known_by_slot_and_generation(void **state)
{
    struct fixture *f = *state;
    struct channel *worker = connect_as(f, 0, 256); /* zeros in front and behind */
    struct channel_peer from;
    uint8_t bytes[16];
    size_t length;
    send_text(worker, nobody, "hello");
    assert_int_equal(receive_by(f->router, &from, bytes, sizeof bytes, &length), OK);
    assert_int_equal(from.slot, 0);
    assert_int_equal(from.generation, 256);
    assert_int_equal(length, 5);
    send_text(f->router, from, "plan");
    assert_int_equal(channel_wait(worker, DEADLINE_US / 1000), OK);
    assert_int_equal(channel_receive(worker, &from, bytes, sizeof bytes, &length), OK);
    assert_memory_equal(bytes, "plan", 4);
    assert_int_equal(channel_receive(worker, &from, bytes, sizeof bytes, &length), ERR_BUSY);
    assert_int_equal(channel_wait(worker, 0), ERR_BUSY);
    channel_close(worker);
}

static void a_message_for_a_worker_that_is_not_there_is_refused(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(channel_send(f->router, (struct channel_peer){3, 1}, (const uint8_t *)"x", 1), ERR_INVALID);
}

static void a_message_longer_than_the_room_is_dropped_and_the_next_one_read(void **state)
{
    struct fixture *f = *state;
    struct channel *worker = connect_as(f, 1, 1);
    struct channel_peer from;
    uint8_t bytes[4];
    size_t length;
    send_text(worker, nobody, "too long");
    send_text(worker, nobody, "fits");
    assert_int_equal(receive_by(f->router, &from, bytes, sizeof bytes, &length), ERR_FORMAT);
    assert_int_equal(receive_by(f->router, &from, bytes, sizeof bytes, &length), OK);
    assert_memory_equal(bytes, "fits", 4);
    channel_close(worker);
}

static void strangers_and_many_part_messages_are_dropped(void **state)
{
    struct fixture *f = *state;
    char endpoint[100];
    struct channel_peer from;
    uint8_t bytes[16];
    size_t length;
    int no_linger = 0;
    snprintf(endpoint, sizeof endpoint, "ipc://%s/channel", f->directory);
    void *context = zmq_ctx_new(), *stranger = zmq_socket(context, ZMQ_DEALER);
    assert_int_equal(zmq_setsockopt(stranger, ZMQ_LINGER, &no_linger, sizeof no_linger), 0);
    assert_int_equal(zmq_connect(stranger, endpoint), 0);
    assert_int_equal(zmq_send(stranger, "hi", 2, 0), 2);
    assert_int_equal(receive_by(f->router, &from, bytes, sizeof bytes, &length), ERR_FORMAT);
    for (int part = 0; part < 3; part++)
        assert_int_equal(zmq_send(stranger, "part", 4, part < 2 ? ZMQ_SNDMORE : 0), 4);
    assert_int_equal(receive_by(f->router, &from, bytes, sizeof bytes, &length), ERR_FORMAT);
    zmq_close(stranger);
    zmq_ctx_term(context);

    struct channel *worker = connect_as(f, 2, 1);
    send_text(worker, nobody, "still");
    assert_int_equal(receive_by(f->router, &from, bytes, sizeof bytes, &length), OK);
    assert_memory_equal(bytes, "still", 5);
    channel_close(worker);
}

static void a_slow_worker_makes_the_queue_full_and_nobody_wait(void **state)
{
    struct fixture *f = *state;
    struct channel *worker = connect_as(f, 1, 1);
    struct channel_peer from;
    static uint8_t bytes[MESSAGE_BYTES_MAX];
    size_t length;
    send_text(worker, nobody, "hello");
    assert_int_equal(receive_by(f->router, &from, bytes, sizeof bytes, &length), OK);
    enum err err = OK;
    for (int i = 0; i < 100000 && err == OK; i++)
        err = channel_send(f->router, from, bytes, 1000);
    assert_int_equal(err, ERR_BUSY);
    channel_close(worker);
}

static void the_directory_is_for_this_user_alone(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    struct channel *c;
    struct why why = {""};
    char open_to_all[] = "/tmp/quire-test-XXXXXX";
    assert_int_equal(stat(f->directory, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_non_null(mkdtemp(open_to_all));
    assert_int_equal(chmod(open_to_all, 0755), 0);
    assert_int_equal(channel_bind(&c, open_to_all, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, open_to_all));
    rmdir(open_to_all);
}

static void the_socket_of_a_dead_coordinator_is_taken_over(void **state)
{
    struct fixture *f = *state;
    char directory[] = "/tmp/quire-test-XXXXXX", path[100];
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/channel", directory);
    FILE *stale = fopen(path, "w");
    assert_non_null(stale);
    fclose(stale);
    struct channel *c = NULL;
    assert_int_equal(channel_bind(&c, directory, NULL), OK);
    channel_close(c);
    assert_int_not_equal(access(directory, F_OK), 0);
    (void)f;
}

static void names_too_long_for_a_socket_are_refused(void **state)
{
    (void)state;
    char directory[CHANNEL_DIRECTORY_MAX + 1];
    char long_runtime[120] = "/tmp/";
    struct why why = {""};
    unsetenv("XDG_RUNTIME_DIR");
    assert_int_equal(channel_directory(directory, "default", NULL), OK);
    assert_int_equal(strncmp(directory, "/tmp/quire.", 11), 0);
    memset(long_runtime + 5, 'x', 100);
    assert_int_equal(mkdir(long_runtime, 0700), 0);
    setenv("XDG_RUNTIME_DIR", long_runtime, 1);
    enum err err = channel_directory(directory, "default", &why);
    unsetenv("XDG_RUNTIME_DIR");
    rmdir(long_runtime);
    assert_int_equal(err, ERR_INVALID);
    assert_true(strlen(why.text) > 0);
}

/* ---- several processes ask for pages at once; all go through the one that owns the pool ---- */

enum { ASKERS = 3, ASKS = 200 };

/* Asks for a page and later gives it back; a hello with pid = page + 1 gives back, with pid 0 asks. */
static void ask_for_pages(const char *directory, uint32_t slot)
{
    struct channel *c;
    uint8_t bytes[64];
    size_t length;
    struct channel_peer from;
    must(channel_connect(&c, directory, (struct channel_peer){slot, 1}, NULL) == OK);
    for (uint32_t i = 0; i < ASKS; i++) {
        struct report ask = {.kind = REPORT_HELLO};
        must(report_pack(&ask, bytes, sizeof bytes, &length) == OK);
        must(channel_send(c, nobody, bytes, length) == OK);
        must(receive_by(c, &from, bytes, sizeof bytes, &length) == OK && length == sizeof(page_id));
        page_id page;
        memcpy(&page, bytes, sizeof page);
        ask.hello.pid = page + 1;
        must(report_pack(&ask, bytes, sizeof bytes, &length) == OK);
        must(channel_send(c, nobody, bytes, length) == OK);
    }
    must(receive_by(c, &from, bytes, sizeof bytes, &length) == OK); /* the last word, so that nothing sent is dropped */
    channel_close(c);
    _exit(0);
}

struct allocation {
    struct arena *arena;
    struct page_pool *pool;
    uint32_t owner[40]; /* 1 + slot of the asker that has the page */
    uint32_t given_back;
};

static void answer(struct allocation *a, struct channel *router, struct channel_peer from, const struct report *ask)
{
    assert_int_equal(ask->kind, REPORT_HELLO);
    if (ask->hello.pid == 0) {
        page_id page = page_pool_take(a->pool, 0, 0);
        assert_true(page < 40);
        assert_int_equal(a->owner[page], 0); /* nobody else has it */
        a->owner[page] = from.slot + 1;
        assert_int_equal(channel_send(router, from, (const uint8_t *)&page, sizeof page), OK);
        return;
    }
    page_id page = ask->hello.pid - 1;
    assert_int_equal(a->owner[page], from.slot + 1);
    a->owner[page] = 0;
    page_pool_release(a->pool, page, 0);
    a->given_back++;
}

static void page_table_concurrent_allocate(void **state)
{
    (void)state;
    char directory[64];
    pid_t askers[ASKERS];
    snprintf(directory, sizeof directory, "/tmp/quire-test-pages-%d", (int)getpid());
    fflush(NULL);
    for (uint32_t i = 0; i < ASKERS; i++) { /* before any context: ZeroMQ does not survive a fork */
        askers[i] = fork();
        if (askers[i] == 0)
            ask_for_pages(directory, i);
    }
    struct allocation a = {.arena = small_arena()};
    struct channel *router;
    static struct message_scratch scratch;
    assert_int_equal(page_pool_open(&a.pool, a.arena, NULL), OK);
    assert_int_equal(channel_bind(&router, directory, NULL), OK);
    while (a.given_back < ASKERS * ASKS) {
        struct channel_peer from;
        struct report ask;
        uint8_t bytes[64];
        size_t length;
        assert_int_equal(receive_by(router, &from, bytes, sizeof bytes, &length), OK);
        assert_int_equal(report_unpack(&ask, bytes, length, &scratch, NULL), OK);
        answer(&a, router, from, &ask);
    }
    for (uint32_t i = 0; i < ASKERS; i++)
        send_text(router, (struct channel_peer){i, 1}, "done");
    for (uint32_t i = 0; i < ASKERS; i++) {
        int status;
        assert_int_equal(waitpid(askers[i], &status, 0), askers[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    assert_int_equal(page_pool_counts(a.pool).free, 40);
    page_pool_must_be_sound(a.pool, NULL);
    channel_close(router);
    page_pool_close(a.pool);
    small_arena_close(a.arena);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_router, close_router)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_table_concurrent_allocate), /* first: it forks */
        TEST(a_worker_is_known_by_slot_and_generation),
        TEST(a_message_for_a_worker_that_is_not_there_is_refused),
        TEST(a_message_longer_than_the_room_is_dropped_and_the_next_one_read),
        TEST(strangers_and_many_part_messages_are_dropped),
        TEST(a_slow_worker_makes_the_queue_full_and_nobody_wait),
        TEST(the_directory_is_for_this_user_alone),
        TEST(the_socket_of_a_dead_coordinator_is_taken_over),
        cmocka_unit_test(names_too_long_for_a_socket_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
