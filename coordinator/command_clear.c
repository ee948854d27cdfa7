/* quire clear: removes the shared memory of a server that is gone. */
#include <stdio.h>

#include "coordinator/command.h"
#include "coordinator/command_input.h"
#include "shm/instance.h"

static const struct command_usage usage = {
    .text = "usage: quire clear [options]\n"
            "Removes the shared memory of the server --name if no process holds it.\n",
    .groups = OF_MEMORY,
};

static enum err clear(const char *name, const char *directory, struct why *why)
{
    struct instance instance;
    struct leftovers dropped;
    enum err e = instance_hold(&instance, name, directory, why);
    if (e)
        return e;
    e = instance_clear(&instance, &dropped, why);
    instance_release(&instance);
    if (!e)
        printf("removed %u segments, %.1f MiB\n", dropped.segments, (double)dropped.bytes / (1 << 20));
    return e;
}

int command_clear(int argc, char **argv)
{
    struct serve_options options;
    struct why why;
    int exit_code;
    serve_options_init(&options);
    if (!command_options(&options, &usage, argc, argv, NULL, &exit_code))
        return exit_code;
    return clear(options.name, options.shm_dir, &why) ? fail_with(argv[0], &why) : 0;
}
