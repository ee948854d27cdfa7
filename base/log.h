/*
 * log: one event, one line, on stderr: "2026-11-21T12:00:01.234 info  worker 2 lost: replaying 7 sequences".
 * A line is written with one write(2), so that lines of several processes do not mix; it never waits: a line for which
 * nobody has made room is dropped and counted.
 */
#ifndef QUIRE_BASE_LOG_H
#define QUIRE_BASE_LOG_H

#include <stddef.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Lines below this level are dropped. Default LOG_INFO. Set once, before threads start. */
void log_set_level(enum log_level least);

/* A word put before each message of this process, such as "worker 3: "; "" by default. Set once, before threads start. */
void log_set_prefix(const char *prefix);

void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Makes spaces of the control characters in words that came from outside and go to a terminal: ASCII's, and C1's, which UTF-8
 * writes in two bytes. log_line does it to every line.
 */
void log_blank_controls(char *words, size_t length);

#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)

#endif
