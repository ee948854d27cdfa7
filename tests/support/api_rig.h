/*
 * api_rig: what the API layer needs of a model (tokenizer, chat template, context), from the header of the default
 * model's file, and short ways to ask and to look at what comes out.
 */
#ifndef QUIRE_TESTS_API_RIG_H
#define QUIRE_TESTS_API_RIG_H

#include <jansson.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/api_request.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"

struct api_rig {
    struct tokenizer *tokenizer;
    struct chat_template *chat_template;
    char *chat_template_text;
    struct api_context context; /* 2048 positions */
};

/* For cmocka_run_group_tests: *state becomes a rig, or NULL where the model's file is not there. */
int api_rig_open(void **state);
int api_rig_close(void **state);

/* The rig of *state; skips the test when there is none. */
struct api_rig *api_rig_of(void **state);

/* A request that must be good. The caller frees it. */
struct api_request *api_rig_parse(struct api_rig *rig, enum api_kind kind, const char *body);

/* A request that must be refused: 400, and param is this field ("" for none). */
void api_rig_refuse(struct api_rig *rig, enum api_kind kind, const char *body, const char *param);

/* The text as JSON, which it must be; empties the text. The caller owns a reference. */
json_t *api_rig_json(struct text *text);

/* Tokens of a text without anything put before it. */
struct token_list api_rig_tokens(struct api_rig *rig, const char *text);

/* A seed, printed: $QUIRE_SEED or the clock. And the generator that it starts (xorshift64*). */
uint64_t api_rig_seed(void);
uint32_t api_rig_random(uint64_t *seed, uint32_t below);

#endif
