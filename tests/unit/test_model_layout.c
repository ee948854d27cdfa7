/* Plans out of memory that somebody else could write: every damage is caught or harmless. */
#include "model/model.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "tests/support/small_llama.h"

static struct model plan; /* too large for the stack */

static void damaged_plan_is_caught(void **state)
{
    (void)state;
    struct file f = small_llama(&(struct bend){0});
    struct gguf *g = small_llama_planned(&f, &plan);
    static struct model damaged;
    const size_t used = offsetof(struct model, layer) + LAYERS * sizeof(struct model_layer);
    for (size_t at = 0; at < used; at++) {
        bool free_text = at >= offsetof(struct model, hash) && at < offsetof(struct model, embed);
        bool only_a_number = (at >= offsetof(struct model, norm_eps) && at < offsetof(struct model, hash)) ||
                             (at >= offsetof(struct model, context_train) && at < offsetof(struct model, rope_pairs));
        damaged = plan;
        ((uint8_t *)&damaged)[at] ^= 0x40;
        if (!free_text && !only_a_number && model_check(&damaged, NULL) == OK)
            fail_msg("byte %zu of the plan was changed and nobody noticed", at);
    }
    assert_int_equal(model_check(&plan, NULL), OK);
    gguf_close(g);
}

static void random_plans_are_survived(void **state)
{
    (void)state;
    uint64_t seed = (uint64_t)getpid() * 0x9e3779b97f4a7c15u + 1, random = seed;
    print_message("seed %" PRIu64 "\n", seed);
    struct file f = small_llama(&(struct bend){0});
    struct gguf *g = small_llama_planned(&f, &plan);
    static struct model damaged;
    struct why why;
    for (uint32_t round = 0; round < 5000; round++) {
        damaged = plan;
        for (uint32_t hits = 0; hits < 1 + round % 6; hits++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            uint32_t at = (uint32_t)(random % (offsetof(struct model, embed) / 4 + 64));
            uint32_t value = (uint32_t)(random >> 32) >> (random % 32);
            memcpy((char *)&damaged + 4 * at, &value, sizeof value);
        }
        model_check(&damaged, &why);
    }
    gguf_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_plan_is_caught),
        cmocka_unit_test(random_plans_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
