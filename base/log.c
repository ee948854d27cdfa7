#include "base/log.h"

#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static enum log_level least_level = LOG_INFO;
static char line_prefix[64];

void log_set_level(enum log_level least)
{
    least_level = least;
}

void log_set_prefix(const char *prefix)
{
    snprintf(line_prefix, sizeof line_prefix, "%s", prefix);
}

/* A pipe that nobody empties must not stop a server: what finds no room is counted, and said with the next line that finds some. */
static void put_line(const char *line, size_t length)
{
    static atomic_uint dropped;
    struct pollfd out = {.fd = 2, .events = POLLOUT};
    if (poll(&out, 1, 0) == 1 && !(out.revents & POLLOUT)) /* POLLERR: nobody reads */
        return;
    if (!(out.revents & POLLOUT)) {
        atomic_fetch_add_explicit(&dropped, 1, memory_order_relaxed); /* a count; orders nothing */
        return;
    }
    unsigned lost = atomic_exchange_explicit(&dropped, 0, memory_order_relaxed); /* the same */
    char notice[64];
    int n = lost ? snprintf(notice, sizeof notice, "(%u lines found no room)\n", lost) : 0;
    ssize_t ignored = n > 0 ? write(2, notice, (size_t)n) : 0;
    ignored = write(2, line, length); /* a pipe that takes anything takes 4096 bytes */
    (void)ignored;
}

void log_blank_controls(char *words, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)words[i], next = i + 1 < length ? (unsigned char)words[i + 1] : 0;
        bool c1 = c == 0xC2 && next >= 0x80 && next < 0xA0;
        if (c < ' ' || c == 127 || c1)
            words[i] = ' ';
        if (c1)
            words[++i] = ' ';
    }
}

void log_line(enum log_level level, const char *format, ...)
{
    static const char *const names[] = {"debug", "info ", "warn ", "error"};
    if (level < least_level)
        return;
    struct timespec now;
    struct tm day;
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &day);

    char line[1024];
    size_t used = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &day);
    int n = snprintf(line + used, sizeof line - used, ".%03ld %s %s", now.tv_nsec / 1000000, names[level], line_prefix);
    used += n > 0 ? (size_t)n : 0;
    va_list args;
    va_start(args, format);
    n = vsnprintf(line + used, sizeof line - used - 1, format, args);
    va_end(args);
    used += n > 0 ? (size_t)n : 0;
    if (used > sizeof line - 2)
        used = sizeof line - 2;
    log_blank_controls(line, used); /* a client's words must not forge a second line, nor command a terminal */
    line[used++] = '\n';
    put_line(line, used);
}
