#include "coordinator/worker_process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { LEAST_PRIORITY = 19 };

/* All signals at their defaults, none blocked: what the coordinator does with signals is not the worker's affair. */
static int set_signals(posix_spawnattr_t *attributes)
{
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int error = posix_spawnattr_setsigmask(attributes, &none);
    if (!error)
        error = posix_spawnattr_setsigdefault(attributes, &all);
    if (!error)
        error = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    return error;
}

/* 0 or an errno; no process is made with less than all of it. */
static int spawn(pid_t *pid, const char *program, char *const argv[])
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    int error = posix_spawn_file_actions_init(&files);
    if (error)
        return error;
    error = posix_spawnattr_init(&attributes);
    if (error) {
        posix_spawn_file_actions_destroy(&files);
        return error;
    }
    error = set_signals(&attributes);
    if (!error)
        error = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    if (!error)
        error = posix_spawn(pid, program, &files, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    return error;
}

enum err worker_process_spawn(struct worker_process *p, const char *program, char *const argv[], struct why *why)
{
    *p = (struct worker_process){.pidfd = -1};
    int error = spawn(&p->pid, program, argv);
    if (error) {
        p->pid = 0;
        return because(why, ERR_IO, "could not start \"%.200s\": %s", argv[0], strerror(error));
    }
    p->pidfd = (int)syscall(SYS_pidfd_open, p->pid, 0);
    if (p->pidfd < 0) {
        because_errno(why, ERR_IO, "could not watch worker process %d", (int)p->pid);
        worker_process_undo(p);
        return ERR_IO;
    }
    return OK;
}

bool worker_process_reap(struct worker_process *p, int *status)
{
    if (!p->pid || waitpid(p->pid, status, WNOHANG) != p->pid)
        return false;
    close(p->pidfd);
    *p = (struct worker_process){.pidfd = -1};
    return true;
}

void worker_process_undo(struct worker_process *p)
{
    kill(p->pid, SIGKILL);
    while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    if (p->pidfd >= 0)
        close(p->pidfd);
    *p = (struct worker_process){.pidfd = -1};
}

void worker_process_kill(const struct worker_process *p)
{
    if (p->pid)
        kill(p->pid, SIGKILL);
}

/* Any of its threads may be the last to go, and that one unmaps. What is refused stays as it was: the others then wait a little. */
void worker_process_step_aside(const struct worker_process *p)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", (int)p->pid);
    DIR *threads = p->pid ? opendir(path) : NULL;
    const struct dirent *entry;
    cpu_set_t ours;
    bool known = sched_getaffinity(0, sizeof ours, &ours) == 0;
    while (threads && (entry = readdir(threads))) {
        pid_t thread = (pid_t)strtol(entry->d_name, NULL, 10);
        if (thread <= 0)
            continue; /* "." and ".." */
        setpriority(PRIO_PROCESS, (id_t)thread, LEAST_PRIORITY);
        if (known)
            sched_setaffinity(thread, sizeof ours, &ours);
    }
    if (threads)
        closedir(threads);
}

/* What stands behind the name in /proc/PID/stat: "S ppid …", exit_code last (proc(5)); NULL: nothing. */
static const char *read_stat(const struct worker_process *p, char *text, size_t room)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)p->pid);
    FILE *file = p->pid ? fopen(path, "re") : NULL;
    if (!file)
        return NULL;
    size_t n = fread(text, 1, room - 1, file);
    fclose(file);
    text[n] = 0;
    const char *name_end = strrchr(text, ')'); /* "pid (name) S …" */
    return name_end && name_end[1] == ' ' ? name_end + 2 : NULL;
}

bool worker_process_is_stopped(const struct worker_process *p)
{
    char text[1024];
    const char *stat = read_stat(p, text, sizeof text);
    return stat && (*stat == 'T' || *stat == 't');
}

/* The kernel writes what stops a process a moment before the state says so; nobody dies of these signals. */
static bool is_stop(int status)
{
    return status == SIGSTOP || status == SIGTSTP || status == SIGTTIN || status == SIGTTOU;
}

bool worker_process_peek(const struct worker_process *p, int *status)
{
    char text[1024];
    const char *stat = read_stat(p, text, sizeof text);
    const char *last = stat ? strrchr(stat, ' ') : NULL;
    if (!last || *stat == 'T' || *stat == 't') /* of a stopped one it says what stopped it */
        return false;
    *status = (int)strtol(last, NULL, 10);
    return *status != 0 && !is_stop(*status);
}

void worker_process_describe(int status, char *out, size_t room)
{
    if (WIFSIGNALED(status))
        snprintf(out, room, "was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(out, room, "exited with status %d", WEXITSTATUS(status));
}

bool worker_process_died_suspect(int status)
{
    return !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}
