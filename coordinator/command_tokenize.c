/* quire tokenize: a JSON array of texts in, a JSON array of arrays of token ids out. Needs no weights and no server. */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/command.h"
#include "coordinator/command_input.h"
#include "model/model_file.h"
#include "model/tokenizer.h"

static const char usage[] =
    "usage: quire tokenize -m MODEL [--special]\n"
    "\n"
    "Reads a JSON array of strings from the standard input and writes a JSON array of arrays of token ids.\n"
    "Nothing is put before or behind a text. A GGUF file without tensors will do, or a directory with a tokenizer.json.\n"
    "\n"
    "  -m, --model PATH   the GGUF file or model directory whose vocabulary is used\n"
    "  --special          control tokens that stand in a text, such as <|im_end|>, are recognised\n"
    "  --help             this text\n";

static json_t *ids_to_json(const struct token_list *list)
{
    json_t *ids = json_array();
    for (size_t i = 0; ids && i < list->count; i++) {
        if (json_array_append_new(ids, json_integer(list->ids[i])) != 0) {
            json_decref(ids);
            return NULL;
        }
    }
    return ids;
}

static enum err tokenize_texts(const struct tokenizer *t, const json_t *texts, bool special, json_t *answers,
                               struct why *why)
{
    if (!json_is_array(texts))
        return because(why, ERR_INVALID, "the standard input holds no JSON array of strings");
    struct token_list list = {0};
    enum err err = OK;
    for (size_t i = 0; err == OK && i < json_array_size(texts); i++) {
        const json_t *text = json_array_get(texts, i);
        list.count = 0;
        if (!json_is_string(text))
            err = because(why, ERR_INVALID, "element %zu of the JSON array on the standard input is no string", i);
        if (err == OK)
            err = tokenizer_encode(t, json_string_value(text), json_string_length(text), special, &list, why);
        if (err == OK && json_array_append_new(answers, ids_to_json(&list)) != 0)
            err = because(why, ERR_NOMEM, "no memory for the token ids");
    }
    token_list_fini(&list);
    return err;
}

static enum err tokenize(const char *model, bool special, struct why *why)
{
    struct gguf *gguf = NULL;
    struct tokenizer *tokenizer = NULL;
    json_t *texts = NULL;
    json_t *answers = json_array();
    enum err err = model_file_open(&gguf, model, &(struct model_file_options){.part = HUB_VOCABULARY}, why);
    if (err == OK)
        err = tokenizer_open(&tokenizer, gguf, why);
    if (err == OK)
        err = read_json_input(&texts, why);
    if (err == OK)
        err = tokenize_texts(tokenizer, texts, special, answers, why);
    char *text = err == OK ? json_dumps(answers, JSON_COMPACT) : NULL;
    if (err == OK && !text)
        err = because(why, ERR_NOMEM, "no memory for the token ids");
    if (err == OK)
        err = write_output(text, strlen(text), why);
    if (err == OK)
        err = write_output("\n", 1, why);
    free(text);
    json_decref(answers);
    json_decref(texts);
    tokenizer_close(tokenizer);
    if (gguf)
        gguf_close(gguf);
    return err;
}

int command_tokenize(int argc, char **argv)
{
    static const struct option options[] = {
        {"model", required_argument, NULL, 'm'},
        {"special", no_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    const char *model = NULL;
    bool special = false;
    optind = 1;
    for (int option; (option = getopt_long(argc, argv, "m:h", options, NULL)) != -1;) {
        switch (option) {
        case 'm':
            model = optarg;
            break;
        case 's':
            special = true;
            break;
        case 'h':
            fputs(usage, stdout);
            return 0;
        default:
            fputs(usage, stderr);
            return 2;
        }
    }
    if (!model || optind != argc) {
        fputs(usage, stderr);
        return 2;
    }
    struct why why;
    return tokenize(model, special, &why) == OK ? 0 : fail_with(argv[0], &why);
}
