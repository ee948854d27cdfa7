/* quire clear: removes the shared memory of a server that is gone. */
#include <stdio.h>
#include <string.h>

#include "coordinator/command.h"
#include "coordinator/options.h"
#include "shm/instance.h"

static void print_help(void)
{
    puts("usage: quire clear [--name N] [--shm-dir D]\n"
         "Removes the shared memory of the server N (default: default) if no process holds it.");
}

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
    const char *rest;
    uint32_t rest_count;
    struct why why;
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        print_help();
        return 0;
    }
    serve_options_init(&options);
    if (serve_options_parse(&options, argc, argv, &rest, 0, &rest_count, &why)) {
        fprintf(stderr, "quire clear: %s\n", why.text);
        return 2;
    }
    if (clear(options.name, options.shm_dir, &why)) {
        fprintf(stderr, "quire clear: %s\n", why.text);
        return 1;
    }
    return 0;
}
