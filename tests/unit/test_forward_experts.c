/*
 * Routing of tokens to experts: who is chosen, ties, shares, and the order of rows. That the answers are right and change in no bit
 * with the company: test_arch.c and test_forward.c.
 */
#include "model/forward_products.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { DIM = 32, EXPERTS = 5, USED = 2, TOKENS = 3 };

static struct model m; /* too large for the stack */
static float router[DIM * TILE_ROWS] __attribute__((aligned(64)));
static float inputs[TOKENS * DIM] __attribute__((aligned(64)));

/* Token t asks with logits[t]: its input is one at number t, and row e of the router holds logits[t][e] there. */
static struct forward *routed(const float logits[TOKENS][EXPERTS])
{
    struct forward *f;
    m = (struct model){.dim = DIM,
                       .ffn = DIM,
                       .heads = 1,
                       .kv_heads = 1,
                       .head_dim = DIM,
                       .vocab = 16,
                       .layers = 1,
                       .experts = EXPERTS,
                       .experts_used = USED,
                       .expert_ffn = DIM};
    struct weight w = {.type = TENSOR_F32, .rows = EXPERTS, .cols = DIM, .count = 1};
    memset(router, 0, sizeof router);
    memset(inputs, 0, sizeof inputs);
    for (uint32_t t = 0; t < TOKENS; t++) {
        inputs[t * DIM + t] = 1.0f;
        for (uint32_t e = 0; e < EXPERTS; e++)
            router[t * TILE_ROWS + e] = logits[t][e];
    }
    struct shared_buffers shared = {0};
    assert_int_equal(forward_open(&f, &m, (const uint8_t *)router, &kernels_reference, 8, 1, NULL), OK);
    forward_join(f, 0, 1, 1, &shared, NULL, NULL);
    forward_take_rows(f, TOKENS, inputs, DIM);
    forward_route(f, &w);
    return f;
}

static void experts_with_the_largest_logits_are_chosen_and_share_one(void **state)
{
    (void)state;
    struct forward *f = routed((const float[TOKENS][EXPERTS]){{0, 3, -1, 2, 1}, {5, 0, 0, 0, 4}, {-9, -8, -7, -6, -5}});
    const struct expert_routes *r = &f->routes;
    const uint32_t first[] = {0, 1, 2, 2, 4, 6}, token[] = {1, 0, 0, 2, 1, 2};
    assert_memory_equal(r->first, first, sizeof first);
    assert_memory_equal(r->token, token, sizeof token);
    double larger = 1.0 / (1.0 + exp(-1.0)); /* all pairs of chosen logits differ by one */
    const double share[] = {larger, larger, 1 - larger, 1 - larger, 1 - larger, larger};
    for (uint32_t i = 0; i < TOKENS * USED; i++)
        assert_true(fabs(r->share[i] - share[i]) < 1e-6);
    forward_close(f);
}

static void ties_go_to_the_lowest_expert(void **state)
{
    (void)state;
    struct forward *f = routed((const float[TOKENS][EXPERTS]){{1, 1, 1, 1, 1}, {0, 2, 2, 2, 2}, {1, 0, 2, 0, 1}});
    const uint32_t first[] = {0, 2, 4, 6, 6, 6}, token[] = {0, 2, 0, 1, 1, 2};
    assert_memory_equal(f->routes.first, first, sizeof first);
    assert_memory_equal(f->routes.token, token, sizeof token);
    assert_true(f->routes.share[0] == 0.5f && f->routes.share[2] == 0.5f);
    forward_close(f);
}

static void logits_that_are_no_numbers_still_choose_as_many_experts(void **state)
{
    (void)state;
    struct forward *f =
        routed((const float[TOKENS][EXPERTS]){{NAN, NAN, NAN, NAN, NAN}, {0, 1, 2, 3, 4}, {0, 1, 2, 3, 4}});
    assert_int_equal(f->routes.first[EXPERTS], TOKENS * USED);
    forward_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_with_the_largest_logits_are_chosen_and_share_one),
        cmocka_unit_test(ties_go_to_the_lowest_expert),
        cmocka_unit_test(logits_that_are_no_numbers_still_choose_as_many_experts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
