#include "shm/instance.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/must.h"

/* Someone who only looks (instance_holder) has the lock for microseconds: worth asking again, for 20 ms in all. */
enum { ATTEMPTS = 10, ATTEMPT_NS = 2 * 1000 * 1000 };
enum { SWEPT_MOST = 32 }; /* names in one sweep */

static pid_t read_pid(int fd)
{
    char text[24] = "";
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    long pid = n > 0 ? strtol(text, NULL, 10) : 0;
    return pid > 0 && pid < INT32_MAX ? (pid_t)pid : 0;
}

static enum err write_pid(int fd, struct why *why)
{
    char text[24];
    int n = snprintf(text, sizeof text, "%d\n", (int)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n)
        return because_errno(why, ERR_IO, "could not write this server's pid into its lock file");
    return OK;
}

/* A lock file that its last holder has removed meanwhile locks nothing. */
static bool is_current(const struct segment_home *home, int fd)
{
    struct stat mine, named;
    int now = segment_open_file(home, "lock", O_RDONLY);
    if (now < 0)
        return false;
    bool same =
        fstat(fd, &mine) == 0 && fstat(now, &named) == 0 && mine.st_ino == named.st_ino && mine.st_dev == named.st_dev;
    close(now);
    return same;
}

static int lock_now(int fd, int kind)
{
    int rc;
    do
        rc = flock(fd, kind | LOCK_NB);
    while (rc != 0 && errno == EINTR);
    return rc;
}

enum err instance_hold(struct instance *instance, const char *name, const char *directory, struct why *why)
{
    instance->lock_fd = -1;
    enum err err = segment_home_init(&instance->home, name, directory, why);
    if (err != OK)
        return err;
    pid_t holder = 0;
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        int fd = segment_open_file(&instance->home, "lock", O_RDWR | O_CREAT);
        if (fd < 0)
            return because_errno(why, ERR_IO, "could not make the lock file of server \"%s\" in %s", name,
                                 *instance->home.directory ? instance->home.directory : "/dev/shm");
        if (lock_now(fd, LOCK_EX) == 0) {
            if (is_current(&instance->home, fd)) {
                instance->lock_fd = fd;
                err = write_pid(fd, why);
                if (err != OK)
                    instance_release(instance);
                return err;
            }
        } else if (errno == EWOULDBLOCK) {
            holder = read_pid(fd);
            nanosleep(&(struct timespec){.tv_nsec = ATTEMPT_NS}, NULL);
        } else {
            err = because_errno(why, ERR_IO, "could not lock the name of server \"%s\"", name);
            close(fd);
            return err;
        }
        close(fd);
    }
    if (holder == 0)
        return because(why, ERR_BUSY, "server \"%s\" is already running", name);
    return because(why, ERR_BUSY, "server \"%s\" is already running (pid %d)", name, (int)holder);
}

void instance_release(struct instance *instance)
{
    if (instance->lock_fd < 0)
        return;
    segment_remove(&instance->home, "lock", NULL); /* before the lock goes: nobody may remove another holder's file */
    close(instance->lock_fd);
    instance->lock_fd = -1;
}

pid_t instance_holder(const struct segment_home *home)
{
    int fd = segment_open_file(home, "lock", O_RDONLY);
    if (fd < 0)
        return 0;
    pid_t holder = 0;
    if (lock_now(fd, LOCK_SH) != 0)
        holder = read_pid(fd);
    close(fd);
    return holder;
}

static void count_segment(void *arg, const char *name, const char *what, uint64_t bytes)
{
    (void)name;
    (void)bytes;
    if (strcmp(what, "lock") != 0)
        ++*(uint32_t *)arg;
}

bool instance_has_leftovers(const struct segment_home *home)
{
    uint32_t segments = 0;
    return segment_list(home, false, count_segment, &segments, NULL) == OK && segments > 0;
}

struct clearing {
    const struct segment_home *home;
    struct leftovers *dropped;
    struct why *why;
    enum err err;
};

static void clear_segment(void *arg, const char *name, const char *what, uint64_t bytes)
{
    struct clearing *c = arg;
    (void)name;
    if (strcmp(what, "lock") == 0 || c->err != OK)
        return;
    c->err = segment_remove(c->home, what, c->why);
    if (c->err == OK) {
        c->dropped->segments++;
        c->dropped->bytes += bytes;
    }
}

enum err instance_clear(const struct instance *held, struct leftovers *dropped, struct why *why)
{
    must(held->lock_fd >= 0);
    *dropped = (struct leftovers){0};
    struct clearing clearing = {.home = &held->home, .dropped = dropped, .why = why};
    enum err err = segment_list(&held->home, false, clear_segment, &clearing, why);
    return err != OK ? err : clearing.err;
}

struct sweep {
    const char *prefix;
    char names[SWEPT_MOST][INSTANCE_NAME_MAX + 1];
    uint32_t count;
};

static void note_name(void *arg, const char *name, const char *what, uint64_t bytes)
{
    struct sweep *s = arg;
    (void)what, (void)bytes;
    if (strncmp(name, s->prefix, strlen(s->prefix)) != 0 || strlen(name) > INSTANCE_NAME_MAX)
        return;
    for (uint32_t i = 0; i < s->count; i++)
        if (strcmp(s->names[i], name) == 0)
            return;
    if (s->count < SWEPT_MOST)
        strcpy(s->names[s->count++], name);
}

void instance_sweep(const char *prefix, const char *directory, struct leftovers *dropped)
{
    struct sweep sweep = {.prefix = prefix};
    struct segment_home home;
    *dropped = (struct leftovers){0};
    if (segment_home_init(&home, prefix, directory, NULL) || segment_list(&home, true, note_name, &sweep, NULL))
        return;
    for (uint32_t i = 0; i < sweep.count; i++) {
        struct instance dead;
        struct leftovers of_one;
        if (instance_hold(&dead, sweep.names[i], directory, NULL))
            continue;
        instance_clear(&dead, &of_one, NULL);
        instance_release(&dead);
        dropped->segments += of_one.segments;
        dropped->bytes += of_one.bytes;
    }
}
