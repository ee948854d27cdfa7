/* quire template: a conversation as JSON in, the text that the model would see out. Needs no weights and no server. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "coordinator/command.h"
#include "coordinator/command_input.h"
#include "model/chat_template.h"
#include "model/model_file.h"
#include "model/tokenizer.h"

static const char usage[] =
    "usage: quire template [-m MODEL] [--file T.jinja]\n"
    "\n"
    "Reads {\"messages\", \"tools\", \"documents\", \"add_generation_prompt\", \"special\": {\"bos_token\",\n"
    "\"eos_token\"}, \"now\"} from the standard input and writes the conversation as the chat template renders it.\n"
    "\n"
    "  -m, --model PATH   the GGUF file or model directory whose template is used, and whose special tokens where none are given\n"
    "  --file FILE        a template in a file of its own\n"
    "  --help             this text\n";

struct source {
    struct gguf *gguf; /* NULL without -m */
    char *file;        /* the template's text, or NULL without --file */
    size_t file_bytes;
};

static enum err open_source(struct source *s, const char *model, const char *path, struct why *why)
{
    if (model) {
        enum err err = model_file_open(&s->gguf, model, &(struct model_file_options){.part = HUB_VOCABULARY}, why);
        if (err != OK)
            return err;
    }
    if (!path)
        return OK;
    FILE *file = fopen(path, "rb");
    if (!file)
        return because_errno(why, ERR_IO, "could not open the template \"%s\"", path);
    enum err err = read_all(file, path, &s->file, &s->file_bytes, why);
    fclose(file);
    return err;
}

static void close_source(struct source *s)
{
    free(s->file);
    if (s->gguf)
        gguf_close(s->gguf);
}

static enum err open_template(struct chat_template **out, const struct source *s, struct why *why)
{
    struct gguf_string text = {s->file, s->file_bytes};
    if (!s->file) {
        enum err err = gguf_get_string(s->gguf, "tokenizer.chat_template", true, &text, why);
        if (err != OK)
            return err;
    }
    return chat_template_open(out, text.at, text.length, why);
}

static void set_token(json_t *variables, const char *name, const struct tokenizer *t, uint32_t id)
{
    if (id == TOKEN_NONE)
        return;
    size_t length;
    const char *text = tokenizer_token_text(t, id, &length);
    json_object_set_new(variables, name, json_stringn(text, length));
}

/* bos_token and eos_token as the model's vocabulary has them. */
static enum err set_tokens_of_model(json_t *variables, const struct gguf *gguf, struct why *why)
{
    struct tokenizer *t;
    enum err err = tokenizer_open(&t, gguf, why);
    if (err != OK)
        return err;
    set_token(variables, "bos_token", t, tokenizer_bos(t));
    set_token(variables, "eos_token", t, tokenizer_eos(t));
    tokenizer_close(t);
    return OK;
}

static enum err gather_variables(json_t *variables, const json_t *input, const struct source *s, struct why *why)
{
    static const char *const names[] = {"messages", "tools", "documents", "add_generation_prompt"};
    if (!json_is_object(input))
        return because(why, ERR_INVALID, "the standard input holds no JSON object");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        json_t *value = json_object_get(input, names[i]);
        if (value)
            json_object_set(variables, names[i], value);
    }
    json_t *special = json_object_get(input, "special");
    if (json_is_object(special))
        json_object_update(variables, special);
    else if (s->gguf)
        return set_tokens_of_model(variables, s->gguf, why);
    return OK;
}

/* "2025-03-04T14:05:09"; without it the present. */
static enum err read_now(const json_t *input, struct tm *time, const struct tm **now, struct why *why)
{
    const json_t *given = json_object_get(input, "now");
    *now = NULL;
    if (!given || json_is_null(given))
        return OK;
    *time = (struct tm){0};
    const char *end = json_is_string(given) ? strptime(json_string_value(given), "%Y-%m-%dT%H:%M:%S", time) : NULL;
    if (!end || *end)
        return because(why, ERR_INVALID, "\"now\" is not like \"2025-03-04T14:05:09\"");
    *now = time;
    return OK;
}

static enum err render(const struct source *s, struct why *why)
{
    struct chat_template *template = NULL;
    json_t *input = NULL;
    json_t *variables = json_object();
    char *text = NULL;
    size_t length;
    struct tm time;
    const struct tm *now;
    enum err err = open_template(&template, s, why);
    if (err == OK)
        err = read_json_input(&input, why);
    if (err == OK)
        err = gather_variables(variables, input, s, why);
    if (err == OK)
        err = read_now(input, &time, &now, why);
    if (err == OK)
        err = chat_template_render(template, variables, now, &text, &length, why);
    if (err == OK)
        err = write_output(text, length, why);
    free(text);
    json_decref(variables);
    json_decref(input);
    chat_template_close(template);
    return err;
}

int command_template(int argc, char **argv)
{
    static const struct option options[] = {
        {"model", required_argument, NULL, 'm'},
        {"file", required_argument, NULL, 'f'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    const char *model = NULL, *path = NULL;
    optind = 1;
    for (int option; (option = getopt_long(argc, argv, "m:h", options, NULL)) != -1;) {
        switch (option) {
        case 'm':
            model = optarg;
            break;
        case 'f':
            path = optarg;
            break;
        case 'h':
            fputs(usage, stdout);
            return 0;
        default:
            fputs(usage, stderr);
            return 2;
        }
    }
    if ((!model && !path) || optind != argc) {
        fputs(usage, stderr);
        return 2;
    }
    struct why why;
    struct source source = {0};
    enum err err = open_source(&source, model, path, &why);
    if (err == OK)
        err = render(&source, &why);
    close_source(&source);
    return err == OK ? 0 : fail_with(argv[0], &why);
}
