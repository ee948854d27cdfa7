#include "coordinator/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "coordinator/template_choice.h"

/*
 * A template that cannot render one question of a user can render nothing: better said before the port opens than to every client. One
 * that refuses it by its own words has its reasons.
 */
static enum err try_template(const struct checkpoint *c, struct why *why)
{
    char *text = NULL;
    size_t length;
    struct why what;
    json_t *variables = json_pack("{s:[{s:s,s:s}],s:b,s:s,s:s}", "messages", "role", "user", "content", "Hello",
                                  "add_generation_prompt", 1, "bos_token", "", "eos_token", "");
    enum err e = variables ? chat_template_render(c->chat_template, variables, NULL, &text, &length, &what) : ERR_NOMEM;
    json_decref(variables);
    free(text);
    if (!variables)
        return because(why, e, "no memory to try the model's chat template");
    return e && e != ERR_INVALID ? because(why, e, "the model's chat template does not render: %.400s", what.text) : OK;
}

static enum err open_template(struct checkpoint *c, const struct gguf *g, const char *file, struct why *why)
{
    struct template_choice choice;
    enum err e = template_choose(&choice, file, g, c->tokenizer, why);
    if (e || !choice.text)
        return e;
    c->template_text = choice.text;
    c->api.chat_template_text = choice.text;
    c->api.chat_template_bytes = choice.length;
    c->template_whose = choice.whose;
    struct why what;
    e = chat_template_open(&c->chat_template, choice.text, choice.length, &what);
    return e ? because(why, e, "the model's chat template cannot be used: %.400s", what.text) : try_template(c, why);
}

static enum err plan_model(struct checkpoint *c, const struct gguf *g, const char *path, uint32_t context,
                           uint32_t step_tokens, struct why *why)
{
    enum err e = model_plan(&c->served.model, g, path, context, why);
    if (e)
        return e;
    c->served.step_tokens = step_tokens;
    c->served.logit_rows = SERVED_LOGIT_ROWS_DEFAULT;
    e = served_model_check(&c->served, why);
    if (!e)
        e = tokenizer_open(&c->tokenizer, g, why);
    if (!e && tokenizer_vocab_size(c->tokenizer) > c->served.model.vocab)
        e = because(why, ERR_FORMAT, "\"%.200s\": the tokenizer has %u tokens, the embedding matrix only %u rows", path,
                    tokenizer_vocab_size(c->tokenizer), c->served.model.vocab);
    return e;
}

/* What requests and answers need to know of it. */
static enum err describe(struct checkpoint *c, struct why *why)
{
    const struct model *model = &c->served.model;
    snprintf(c->fingerprint, sizeof c->fingerprint, "quire-%016llx", (unsigned long long)model->hash);
    c->api.tokenizer = c->tokenizer;
    c->api.chat_template = c->chat_template;
    c->api.model_name = model->name;
    c->api.fingerprint = c->fingerprint;
    c->api.context_tokens = model->context;
    c->card = (struct api_model_card){
        .created = (int64_t)time(NULL),
        .trained_context_tokens = model->context_train,
        .embedding = model->dim,
        .parameters = model->parameters,
        .bytes = model->file_bytes,
    };
    return api_context_open(&c->api, why);
}

enum err checkpoint_open(struct checkpoint *c, const char *path, const struct model_file_options *options,
                         const char *template_file, uint32_t context, uint32_t step_tokens, struct why *why)
{
    *c = (struct checkpoint){0};
    struct gguf *g;
    enum err e = model_file_open(&g, path, options, why);
    if (e)
        return e;
    e = plan_model(c, g, path, context, step_tokens, why);
    if (!e)
        e = open_template(c, g, template_file, why);
    gguf_close(g);
    if (!e)
        e = describe(c, why);
    if (e)
        checkpoint_close(c);
    return e;
}

void checkpoint_close(struct checkpoint *c)
{
    api_context_close(&c->api);
    if (c->chat_template)
        chat_template_close(c->chat_template);
    if (c->tokenizer)
        tokenizer_close(c->tokenizer);
    free(c->template_text);
    *c = (struct checkpoint){0};
}
