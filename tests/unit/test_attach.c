/* Memory that does not fit its model, or whose model block was spoiled, is refused with a sentence and nothing stays mapped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/server_rig.h"
#include "worker/attach.h"

#define TINY "tiny/llama/model-f32.gguf"

static int open_server(void **state)
{
    static struct server_rig server;
    *state = server_rig_open(&server, TINY, (struct server_sizes){0}) ? &server : NULL;
    return 0;
}

static int close_server(void **state)
{
    if (*state)
        server_rig_close(*state);
    return 0;
}

static struct server_rig *server_or_skip(void **state)
{
    if (!*state)
        skip();
    return *state;
}

static struct served_model *model_block(struct server_rig *server)
{
    return (struct served_model *)(void *)(server->arena.table.base + server->arena.layout.model_at);
}

static void a_whole_server_is_attached_and_its_model_copied(void **state)
{
    struct server_rig *server = server_or_skip(state);
    struct attachment at;
    struct why why;
    assert_int_equal(attach_open(&at, &server->instance.home, &why), OK);
    assert_memory_equal(&at.served, &server->served, sizeof at.served);
    model_block(server)->step_tokens = 0; /* afterwards nobody asks the shared one again */
    assert_int_equal(at.served.step_tokens, server->served.step_tokens);
    attach_close(&at);
}

static void a_server_that_is_not_there_is_a_sentence(void **state)
{
    server_or_skip(state);
    struct segment_home home;
    struct attachment at;
    struct why why;
    assert_int_equal(segment_home_init(&home, "test-nobody", NULL, &why), OK);
    assert_int_not_equal(attach_open(&at, &home, &why), OK);
}

static void refused(struct server_rig *server, const char *said)
{
    struct attachment at;
    struct why why = {""};
    assert_int_not_equal(attach_open(&at, &server->instance.home, &why), OK);
    if (!strstr(why.text, said))
        fail_msg("expected \"%s\" in \"%s\"", said, why.text);
}

static void a_spoiled_model_block_is_refused(void **state)
{
    struct server_rig *server = server_or_skip(state);
    struct served_model *m = model_block(server);
    m->step_tokens = 0;
    refused(server, "step of 0 tokens");
    m->step_tokens = SERVED_STEP_TOKENS_MAX; /* good in itself, but there is no memory for it */
    refused(server, "work space");
    *m = server->served;
    m->logit_rows = m->step_tokens + 1;
    refused(server, "logits");
    *m = server->served;
    m->model.layer[1].gate.offset = UINT64_MAX - 63;
    refused(server, "");
    *m = server->served;
    m->model.weights_bytes += 1 << 20;
    refused(server, "model");
    *m = server->served;
    m->model.vocab = UINT32_MAX;
    refused(server, "");
}

static void weights_are_writable_until_they_are_sealed(void **state)
{
    struct server_rig *server = server_or_skip(state);
    struct attachment at;
    struct why why;
    assert_int_equal(attach_open(&at, &server->instance.home, &why), OK);
    assert_int_equal(attach_join(&at, 1, &why), ERR_INVALID);
    assert_int_equal(attach_join(&at, 0, &why), OK);
    assert_int_equal(at.arena.weights.access, SEGMENT_WRITE);
    assert_int_equal(attach_seal(&at, &why), OK);
    assert_int_equal(at.arena.weights.access, SEGMENT_READ);
    assert_int_equal(attach_join(&at, 0, &why), OK); /* they are not whole: a share is to be built again */
    assert_int_equal(at.arena.weights.access, SEGMENT_WRITE);
    attach_close(&at);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_whole_server_is_attached_and_its_model_copied, open_server, close_server),
        cmocka_unit_test_setup_teardown(a_server_that_is_not_there_is_a_sentence, open_server, close_server),
        cmocka_unit_test_setup_teardown(a_spoiled_model_block_is_refused, open_server, close_server),
        cmocka_unit_test_setup_teardown(weights_are_writable_until_they_are_sealed, open_server, close_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
