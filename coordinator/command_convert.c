/* quire convert: a model as one GGUF file. What it writes is what quire serve with the same options computes with. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/command.h"
#include "coordinator/command_input.h"
#include "coordinator/options.h"
#include "model/model.h"
#include "model/model_file.h"
#include "model/tokenizer.h"

static const char usage[] =
    "usage: quire convert -m MODEL -o FILE.gguf [--quantize TYPE] [--override KEY=VALUE]\n"
    "\n"
    "Writes a directory of a model hub, or a GGUF file, as one GGUF file. Nothing is at FILE.gguf before all of it is.\n"
    "\n"
    "  -m, --model PATH       a directory with config.json, safetensors and tokenizer.json, or a GGUF file\n"
    "  -o, --output FILE      the file to write; replaced when it is there\n"
    "  --quantize TYPE        q8_0, q4_0 or q4_k: what float matrices become; rows that are no whole number of\n"
    "                         blocks of q4_k become q8_0\n"
    "  --override KEY=VALUE   in place of what the model says, as GGUF names it; may be repeated\n"
    "  --help                 this text\n";

/* Whatever could not be served is not written either. */
static enum err check(const struct gguf *g, const char *path, struct why *why)
{
    struct tokenizer *tokenizer;
    struct model *model = malloc(sizeof *model);
    if (!model)
        return because(why, ERR_NOMEM, "no memory to convert \"%.300s\"", path);
    enum err err = model_plan(model, g, path, 0, why);
    free(model);
    if (err == OK)
        err = tokenizer_open(&tokenizer, g, why);
    if (err == OK)
        tokenizer_close(tokenizer);
    return err;
}

static enum err convert(const char *model, const char *output, const struct model_file_options *options,
                        struct why *why)
{
    struct gguf *g;
    enum err err = model_file_open(&g, model, options, why);
    if (err != OK)
        return err;
    err = check(g, model, why);
    if (err == OK)
        err = model_file_save(g, output, why);
    gguf_close(g);
    return err;
}

int command_convert(int argc, char **argv)
{
    static const struct option options[] = {
        {"model", required_argument, NULL, 'm'},    {"output", required_argument, NULL, 'o'},
        {"quantize", required_argument, NULL, 'q'}, {"override", required_argument, NULL, 'k'},
        {"help", no_argument, NULL, 'h'},           {0},
    };
    struct serve_options o;
    struct why why;
    const char *output = NULL;
    enum err err = OK;
    serve_options_init(&o);
    optind = 1;
    for (int option; err == OK && (option = getopt_long(argc, argv, "m:o:h", options, NULL)) != -1;) {
        switch (option) {
        case 'm':
            err = serve_option_set(&o, "model", optarg, &why);
            break;
        case 'o':
            output = optarg;
            break;
        case 'q':
            err = serve_option_set(&o, "quantize", optarg, &why);
            break;
        case 'k':
            err = serve_option_set(&o, "override", optarg, &why);
            break;
        case 'h':
            fputs(usage, stdout);
            return 0;
        default:
            fputs(usage, stderr);
            return 2;
        }
    }
    if (err != OK) {
        fail_with(argv[0], &why);
        return 2;
    }
    if (!*o.model || !output || optind != argc) {
        fputs(usage, stderr);
        return 2;
    }
    const struct model_file_options how = {.quantize = o.quantize, .overrides = o.overrides};
    return convert(o.model, output, &how, &why) == OK ? 0 : fail_with(argv[0], &why);
}
