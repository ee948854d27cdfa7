/* The clock around the kernels: it changes no bit, loses no moment, and knows which part a moment belongs to. */
#include "coordinator/audit_clock.h"

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "model/forward.h"
#include "tests/support/model_rig.h"

enum { TOKENS = 40 };

struct run {
    float *logits; /* (TOKENS, vocab) */
    uint64_t (*spent)[AUDIT_PART_COUNT];
    uint64_t began, ended;
    uint32_t layers;
};

/* One prompt by kernels k; with a map, under the clock. */
static struct run run_prompt(const struct rig *rig, const struct kernels *k, const struct audit_map *map)
{
    struct run r = {.layers = rig->m.layers};
    uint32_t ids[TOKENS];
    for (uint32_t i = 0; i < TOKENS; i++)
        ids[i] = (7 * i + 11) % rig->m.vocab;
    r.logits = malloc((size_t)TOKENS * rig->m.vocab * sizeof *r.logits);
    r.spent = calloc(rig->m.layers + 1, sizeof *r.spent);
    assert_non_null(r.logits);
    assert_non_null(r.spent);
    struct audit_clock clock = {.map = map, .spent = r.spent};
    struct engine e = engine_open(rig, k, 1);
    struct sequence s = sequence_make(rig, ids, TOKENS);
    if (map) {
        audit_clock_start(&clock);
        r.began = clock.last;
    }
    engine_feed(&e, &s, TOKENS, r.logits);
    if (map) {
        audit_clock_stop();
        r.ended = clock.last;
    }
    sequence_free(&s);
    engine_close(&e);
    return r;
}

static void run_free(struct run *r)
{
    free(r->logits);
    free(r->spent);
}

static uint64_t spent_on(const struct run *r, enum audit_part part)
{
    uint64_t sum = 0;
    for (uint32_t layer = 0; layer <= r->layers; layer++)
        sum += r->spent[layer][part];
    return sum;
}

static struct audit_map *map_of(const struct rig *rig)
{
    struct audit_map *map;
    assert_int_equal(audit_map_open(&map, &rig->m, rig->weights, NULL), OK);
    return map;
}

static void a_pass_under_the_clock_gives_the_same_bits(void **state)
{
    (void)state;
    static const char *const files[] = {"tiny/gemma3/model-q8_0.gguf", "tiny/gpt2/model-q8_0.gguf",
                                        "tiny/mixtral/model-q8_0.gguf", "tiny/gemma2/model-f32.gguf"};
    uint32_t sets, compared = 0;
    const struct kernels *const *set = kernels_runnable(&sets);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        static struct rig rig;
        if (!rig_open(&rig, files[i], 0))
            continue;
        struct audit_map *map = map_of(&rig);
        for (uint32_t k = 0; k < sets; k++, compared++) {
            struct run plain = run_prompt(&rig, set[k], NULL);
            struct run clocked = run_prompt(&rig, audit_clock_kernels(set[k]), map);
            assert_memory_equal(plain.logits, clocked.logits, TOKENS * rig.m.vocab * sizeof(float));
            run_free(&plain);
            run_free(&clocked);
        }
        audit_map_close(map);
        rig_close(&rig);
    }
    if (compared == 0)
        skip();
}

static void every_moment_belongs_to_one_part_of_one_layer(void **state)
{
    (void)state;
    static struct rig rig;
    if (!rig_open(&rig, "tiny/gemma3/model-q8_0.gguf", 0))
        skip();
    struct audit_map *map = map_of(&rig);
    struct run r = run_prompt(&rig, audit_clock_kernels(kernels_choose(NULL)), map);
    uint64_t sum = 0;
    for (uint32_t part = 0; part < AUDIT_PART_COUNT; part++)
        sum += spent_on(&r, part);
    assert_int_equal(sum, r.ended - r.began);
    run_free(&r);
    audit_map_close(map);
    rig_close(&rig);
}

static void time_goes_to_the_parts_that_a_family_has_and_to_their_layers(void **state)
{
    (void)state;
    static const enum audit_part in_a_layer[] = {AUDIT_NORM, AUDIT_QKV, AUDIT_STORE, AUDIT_OUTPUT, AUDIT_MLP};
    static const struct {
        const char *file;
        bool quantised, qk_norm, rope;
    } families[] = {{"tiny/gemma3/model-q8_0.gguf", true, true, true},
                    {"tiny/llama/model-f32.gguf", false, false, true},
                    {"tiny/gpt2/model-q8_0.gguf", true, false, false}};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        static struct rig rig;
        if (!rig_open(&rig, families[i].file, 0))
            skip();
        struct audit_map *map = map_of(&rig);
        const struct kernels *set = kernels_choose(NULL);
        struct run r = run_prompt(&rig, audit_clock_kernels(set), map);
        for (uint32_t layer = 0; layer < rig.m.layers; layer++)
            for (size_t p = 0; p < sizeof in_a_layer / sizeof *in_a_layer; p++)
                assert_true(r.spent[layer][in_a_layer[p]] > 0);
        assert_true(r.spent[rig.m.layers][AUDIT_HEAD] > 0 && r.spent[rig.m.layers][AUDIT_EMBED] > 0);
        assert_int_equal(spent_on(&r, AUDIT_HEAD), r.spent[rig.m.layers][AUDIT_HEAD]);
        assert_int_equal(spent_on(&r, AUDIT_QUANTISE) > 0, families[i].quantised);
        assert_int_equal(spent_on(&r, AUDIT_QK_NORM) > 0, families[i].qk_norm);
        assert_int_equal(spent_on(&r, AUDIT_ROPE) > 0, families[i].rope);
        assert_int_equal(spent_on(&r, AUDIT_SCORES) > 0, set->attend_steps != NULL);
        assert_int_equal(spent_on(&r, AUDIT_ATTENTION) > 0, set->attend_steps == NULL);
        run_free(&r);
        audit_map_close(map);
        rig_close(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pass_under_the_clock_gives_the_same_bits),
        cmocka_unit_test(every_moment_belongs_to_one_part_of_one_layer),
        cmocka_unit_test(time_goes_to_the_parts_that_a_family_has_and_to_their_layers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
