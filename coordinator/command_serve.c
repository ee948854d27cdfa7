/* quire serve: options, log level, then the server. */
#include <string.h>

#include "base/log.h"
#include "coordinator/command.h"
#include "coordinator/command_input.h"
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

static const struct command_usage usage = {
    .text = "usage: quire serve -m MODEL [options]\n"
            "Serves a model over HTTP, with the routes of OpenAI's API. GET / shows a page to try it.\n",
    .groups = OF_ALL,
};

int command_serve(int argc, char **argv)
{
    struct serve_options options;
    struct why why;
    int exit_code;
    serve_options_init(&options);
    if (!command_options(&options, &usage, argc, argv, NULL, &exit_code))
        return exit_code;
    return set_log_level(options.log_level, &why) ? refuse_with(argv[0], &why) : server_run(&options);
}
