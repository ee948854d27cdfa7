/* quire serve: options, log level, then the server. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "coordinator/command.h"
#include "coordinator/options.h"
#include "coordinator/server.h"

static enum err set_log_level(const char *name, struct why *why)
{
    static const char *const names[] = {
        [LOG_DEBUG] = "debug", [LOG_INFO] = "info", [LOG_WARN] = "warn", [LOG_ERROR] = "error"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) {
            log_set_level((enum log_level)i);
            return OK;
        }
    return because(why, ERR_INVALID, "--log-level %.60s is none of debug, info, warn and error", name);
}

static void print_help(void)
{
    puts("usage: quire serve -m MODEL [options]\n"
         "Serves a model over HTTP, with the routes of OpenAI's API. GET / shows a page to try it.\n");
    serve_options_print_help();
}

int command_serve(int argc, char **argv)
{
    struct serve_options options;
    const char *rest;
    uint32_t rest_count;
    struct why why;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0) {
            print_help();
            return 0;
        }
    serve_options_init(&options);
    enum err e = serve_options_parse(&options, argc, argv, &rest, 0, &rest_count, &why);
    if (!e)
        e = set_log_level(options.log_level, &why);
    if (e) {
        fprintf(stderr, "quire serve: %s\n", why.text);
        return 2;
    }
    return server_run(&options);
}
