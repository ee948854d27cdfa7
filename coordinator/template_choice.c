#include "coordinator/template_choice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/command_input.h"

/* Turns without tools and thinking: what every model of the family understands. Text in front of the first turn belongs to it. */
static const struct family {
    const char *token; /* that opens a turn */
    const char *whose;
    const char *text;
} families[] = {
    {"<start_of_turn>", "the plain one of Gemma's turns",
     "{{ bos_token }}{% set ns = namespace(before='') %}{% for m in messages %}"
     "{% if m.role == 'system' or m.role == 'developer' %}{% set ns.before = ns.before + (m.content or '') | trim + '\\n\\n' %}"
     "{% else %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else 'user') + '\\n' + ns.before + "
     "(m.content or '') | trim + '<end_of_turn>\\n' }}{% set ns.before = '' %}{% endif %}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"},
    {"<|im_start|>", "the plain one of ChatML",
     "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + (m.content or '') + '<|im_end|>\\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"},
};

static enum err from_file(struct template_choice *out, const char *path, struct why *why)
{
    FILE *file = fopen(path, "rbe");
    if (!file)
        return because_errno(why, ERR_IO, "could not open the chat template \"%.200s\"", path);
    enum err e = read_all(file, path, &out->text, &out->length, why);
    fclose(file);
    if (e)
        return e;
    out->whose = "that of the file";
    if (out->length)
        return OK;
    free(out->text);
    out->text = NULL;
    return because(why, ERR_INVALID, "the chat template \"%.200s\" is empty", path);
}

static enum err copy(struct template_choice *out, const char *text, size_t length, const char *whose, struct why *why)
{
    out->text = malloc(length);
    if (!out->text)
        return because(why, ERR_NOMEM, "no memory for the model's chat template");
    memcpy(out->text, text, length);
    out->length = length;
    out->whose = whose;
    return OK;
}

enum err template_choose(struct template_choice *out, const char *file, const struct gguf *g,
                         const struct tokenizer *tokenizer, struct why *why)
{
    *out = (struct template_choice){0};
    if (file && *file)
        return from_file(out, file, why);
    struct gguf_string own = {0};
    enum err e = gguf_get_string(g, "tokenizer.chat_template", false, &own, why);
    if (e)
        return e;
    if (own.length)
        return copy(out, own.at, own.length, "the model's", why);
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (tokenizer_special(tokenizer, families[i].token, strlen(families[i].token)) != TOKEN_NONE)
            return copy(out, families[i].text, strlen(families[i].text), families[i].whose, why);
    return OK;
}
