/*
 * quire-worker: the process around worker_run. What stays true: it dies with its coordinator, leaves no core dump (whose
 * writing would delay the end of its life lock by seconds), is what the kernel should take first when memory runs out, and
 * has no rights beyond those of an ordinary process of its user.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"
#include "worker/sandbox.h"
#include "worker/worker.h"

/* Ctrl-C and a service manager's SIGTERM reach the whole process group; when to stop is the coordinator's decision. */
static void set_signals(void)
{
    static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
    for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
        signal(ignored[i], SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void offer_to_oom_killer(void)
{
    FILE *score = fopen("/proc/self/oom_score_adj", "w");
    if (!score)
        return; /* a container may hide it: then all processes count alike */
    fputs("500", score);
    fclose(score);
}

/* From here on the death of the parent's spawning thread kills us; false: it had died before. */
static bool die_with_parent(pid_t parent)
{
    if (parent == 0)
        return true;
    return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent;
}

int main(int argc, char **argv)
{
    struct worker_options options;
    struct why why;
    if (worker_options_parse(&options, argc, argv, &why) != OK) {
        fprintf(stderr, "quire-worker: %s\n%s", why.text, worker_usage());
        return WORKER_EXIT_USAGE;
    }
    if (!die_with_parent(options.parent))
        return WORKER_EXIT_ORPHANED;
    set_signals();
    offer_to_oom_killer(); /* before dumpable goes: afterwards the file is root's */
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    prctl(PR_SET_DUMPABLE, 0);
    prctl(PR_SET_NAME, "quire-worker");

    fault_open(options.slot, options.generation);
    log_set_level(options.log_level);
    char prefix[32];
    snprintf(prefix, sizeof prefix, "worker %u: ", options.slot);
    log_set_prefix(prefix);
    enum err err = options.sandbox ? sandbox_drop_rights(options.model, &why) : OK;
    if (err == OK)
        err = worker_run(&options, &why);
    if (err != OK) {
        log_error("%s", why.text);
        return WORKER_EXIT_FAILED;
    }
    return WORKER_EXIT_STOPPED;
}
