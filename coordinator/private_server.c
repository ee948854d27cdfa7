/* private_server: what the server says on stderr is read by us alone: first for its port, then for warnings. */
#include "coordinator/private_server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/instance.h"

enum { STOP_MS = 15 * 1000, OUR_OPTIONS = 12 };

/* ---- lines of its log: "2026-11-21T12:00:01.234 info  what happened" ---- */

struct log_reader {
    int fd;
    size_t length;
    char bytes[4096];
};

/* The next line out of what has been read, terminated in place; NULL: there is none yet. Its bytes go with the next call. */
static char *next_line(struct log_reader *r, char line[static 4096])
{
    char *newline = memchr(r->bytes, '\n', r->length);
    size_t length = newline ? (size_t)(newline - r->bytes) : r->length;
    if (!newline && r->length < sizeof r->bytes)
        return NULL;
    size_t kept = length < sizeof r->bytes ? length : sizeof r->bytes - 1; /* an overlong line loses a byte */
    memcpy(line, r->bytes, kept);
    line[kept] = 0;
    size_t taken = newline ? length + 1 : length;
    memmove(r->bytes, r->bytes + taken, r->length - taken);
    r->length -= taken;
    return line;
}

/* False: nobody will write to it any more. */
static bool read_more(struct log_reader *r)
{
    ssize_t n;
    do
        n = read(r->fd, r->bytes + r->length, sizeof r->bytes - r->length);
    while (n < 0 && errno == EINTR);
    r->length += n > 0 ? (size_t)n : 0;
    return n > 0;
}

/* What a log line says, NULL when it is of another level. */
static const char *said(const char *line, const char *level)
{
    enum { TIME_LENGTH = 24, LEVEL_LENGTH = 6 };
    bool is_log_line = strlen(line) > TIME_LENGTH + LEVEL_LENGTH && line[10] == 'T' && line[19] == '.';
    return is_log_line && strncmp(line + TIME_LENGTH, level, strlen(level)) == 0 ? line + TIME_LENGTH + LEVEL_LENGTH
                                                                                 : NULL;
}

/* ---- starting ---- */

/* The words behind "quire serve"; ours come last and win. */
static char **make_arguments(const struct private_server *p, char *const *options, int count)
{
    const char *ours[] = {"--host=127.0.0.1", "--port=0", "--api-key-file=", "--log-level=info", "--keep=no",
                          "--name",           p->name};
    char **words = calloc((size_t)count + OUR_OPTIONS, sizeof *words);
    int n = 0;
    if (!words)
        return NULL;
    words[n++] = (char *)"quire"; /* execv changes none of its words */
    words[n++] = (char *)"serve";
    words[n++] = (char *)"--spares=0"; /* one user: not worth the memory, unless the options say so */
    for (int i = 0; i < count; i++)
        words[n++] = options[i];
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        words[n++] = (char *)ours[i];
    return words;
}

/* In the child: becomes the server. */
static _Noreturn void become_server(char **words, int log_fd, pid_t owner)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    setpgid(0, 0); /* Ctrl-C is for the owner, not for the server */
    int nothing = open("/dev/null", O_RDWR);
    dup2(nothing, 0);
    dup2(nothing, 1);
    dup2(log_fd, 2);
    if (getppid() == owner) /* otherwise it died before it could be tied to us */
        execv("/proc/self/exe", words);
    static const char problem[] = "could not start this program once more\n";
    ssize_t ignored = write(2, problem, sizeof problem - 1);
    (void)ignored;
    _exit(1);
}

static enum err spawn(struct private_server *p, char *const *options, int count, struct why *why)
{
    int ends[2];
    char **words = make_arguments(p, options, count);
    if (!words)
        return because(why, ERR_NOMEM, "no memory to start a server");
    if (pipe2(ends, O_CLOEXEC)) {
        free(words);
        return because_errno(why, ERR_NOMEM, "could not make a pipe for the server's log");
    }
    pid_t owner = getpid();
    p->pid = fork();
    if (p->pid == 0)
        become_server(words, ends[1], owner);
    free(words);
    close(ends[1]);
    p->log_fd = ends[0];
    if (p->pid < 0) {
        close(ends[0]);
        return because_errno(why, ERR_NOMEM, "could not start a process for the server");
    }
    return OK;
}

static void show_progress(const char *message)
{
    double done, total;
    if (isatty(2) && sscanf(message, "loading: %lf of %lf MiB", &done, &total) == 2 && total > 0)
        fprintf(stderr, "\rloading: %.0f %% ", 100 * done / total);
}

static void wipe_progress(void)
{
    if (isatty(2))
        fputs("\r\033[K", stderr);
}

/* Learns what it can from a line; true: the server can answer. */
static bool take_start_line(struct private_server *p, const char *line)
{
    const char *message = said(line, "info"), *fault = said(line, "error");
    if (!message) {
        if (fault || !said(line, ""))
            snprintf(p->words, sizeof p->words, "%.500s", fault ? fault : line);
        return false;
    }
    const char *address = strstr(message, "listening on http://");
    const char *port = address ? strchr(address + strlen("listening on http://"), ':') : NULL;
    if (port)
        p->port = (uint16_t)strtoul(port + 1, NULL, 10);
    show_progress(message);
    return p->port && strncmp(message, "ready ", 6) == 0;
}

static enum err wait_ready(struct private_server *p, int interrupt_fd, struct why *why)
{
    struct log_reader reader = {.fd = p->log_fd};
    char line[sizeof reader.bytes];
    for (;;) {
        struct pollfd watched[] = {{.fd = p->log_fd, .events = POLLIN}, {.fd = interrupt_fd, .events = POLLIN}};
        if (poll(watched, 2, -1) < 0 && errno != EINTR)
            return because_errno(why, ERR_IO, "could not wait for the server");
        if (watched[1].revents)
            return because(why, ERR_ABORTED, "interrupted");
        if (!watched[0].revents)
            continue;
        if (!read_more(&reader))
            return because(why, ERR_IO, "%s", *p->words ? p->words : "the server ended before it could answer");
        while (next_line(&reader, line))
            if (take_start_line(p, line))
                return OK;
    }
}

/* ---- while it runs ---- */

static void *tell_troubles(void *arg)
{
    const struct private_server *p = arg;
    struct log_reader reader = {.fd = p->log_fd};
    char line[sizeof reader.bytes];
    while (read_more(&reader))
        while (next_line(&reader, line))
            if (said(line, "warn") || said(line, "error") || !said(line, ""))
                fprintf(stderr, "%s\n", line);
    return NULL;
}

enum err private_server_start(struct private_server *p, char *const *options, int count, const char *shm_dir,
                              int interrupt_fd, struct why *why)
{
    *p = (struct private_server){.shm_dir = shm_dir};
    snprintf(p->name, sizeof p->name, "run-%d", (int)getpid());
    enum err e = spawn(p, options, count, why);
    if (e)
        return e;
    e = wait_ready(p, interrupt_fd, why);
    wipe_progress();
    if (!e) {
        p->listens = pthread_create(&p->log_thread, NULL, tell_troubles, p) == 0;
        if (!p->listens)
            e = because(why, ERR_NOMEM, "could not start a thread for the server's log");
    }
    if (e)
        private_server_stop(p);
    return e;
}

/* ---- the end ---- */

/* True: it has ended by now. */
static bool ends_in_time(const struct private_server *p)
{
    int fd = (int)syscall(SYS_pidfd_open, p->pid, 0);
    struct pollfd watched = {.fd = fd, .events = POLLIN};
    int ready = fd < 0 ? 0 : poll(&watched, 1, STOP_MS);
    if (fd >= 0)
        close(fd);
    return ready > 0;
}

/* It had no time to remove its memory itself. */
static void remove_memory(const struct private_server *p)
{
    struct instance instance;
    struct leftovers dropped;
    if (instance_hold(&instance, p->name, p->shm_dir, NULL))
        return;
    instance_clear(&instance, &dropped, NULL);
    instance_release(&instance);
}

void private_server_stop(struct private_server *p)
{
    int status = 0;
    kill(p->pid, SIGTERM);
    if (!ends_in_time(p))
        kill(p->pid, SIGKILL);
    while (waitpid(p->pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(status))
        remove_memory(p);
    if (p->listens) {
        pthread_cancel(p->log_thread); /* a worker that is still dying holds the pipe open */
        pthread_join(p->log_thread, NULL);
    }
    close(p->log_fd);
}
