/* quire fsck: the rules of shm/fsck.h against the memory of a live or dead server. */
#include <stdio.h>
#include <time.h>

#include "coordinator/command.h"
#include "coordinator/command_input.h"
#include "shm/fsck.h"
#include "shm/instance.h"

enum {
    SHOWN_MOST = 20, /* sentences of one rule */
    LOOKS = 5,       /* at a live server, which may be in the middle of a change */
    LOOK_AGAIN_MS = 20,
};

static const struct command_usage usage = {
    .text =
        "usage: quire fsck [options]\n"
        "Checks the shared memory of the server --name, live or dead, against the rules of shm/fsck.h. Changes nothing.\n"
        "Exit code 0: all is as it must be; 1: it is not, or there is no such memory.\n",
    .groups = OF_MEMORY,
};

static void print_fault(void *arg, uint32_t rule, const char *sentence)
{
    uint32_t *shown = arg;
    if (shown[rule]++ < SHOWN_MOST)
        printf("rule %u: %s\n", rule, sentence);
}

static void note_fault(void *arg, uint32_t rule, const char *sentence)
{
    (void)arg, (void)rule, (void)sentence;
}

/* A fault of a live server counts when every look finds one. */
static enum err look(struct fsck_report *report, const struct segment_home *home, struct why *why)
{
    uint32_t shown[FSCK_RULES + 1] = {0};
    enum err e = OK;
    for (uint32_t i = 0; i < LOOKS && instance_holder(home); i++) {
        e = fsck_run(report, home, note_fault, NULL, why);
        if (e || !fsck_faults(report))
            return e;
        nanosleep(&(struct timespec){.tv_nsec = LOOK_AGAIN_MS * 1000 * 1000}, NULL);
    }
    return fsck_run(report, home, print_fault, shown, why);
}

int command_fsck(int argc, char **argv)
{
    struct serve_options options;
    struct segment_home home;
    struct fsck_report report;
    struct why why;
    int exit_code;
    serve_options_init(&options);
    if (!command_options(&options, &usage, argc, argv, NULL, &exit_code))
        return exit_code;
    if (segment_home_init(&home, options.name, options.shm_dir, &why) || look(&report, &home, &why))
        return fail_with(argv[0], &why);
    printf("%u pages, %u of them sealed; %u sessions; %u faults\n", report.pages, report.sealed, report.sessions,
           fsck_faults(&report));
    return fsck_faults(&report) ? 1 : 0;
}
