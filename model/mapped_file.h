/*
 * mapped_file: a regular file as a private read-only mapping. A file that somebody shortens while it is mapped ends the reading
 * process with SIGBUS; that is why only loading reads one.
 */
#ifndef QUIRE_MODEL_MAPPED_FILE_H
#define QUIRE_MODEL_MAPPED_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct mapped_file {
    const uint8_t *bytes; /* NULL: none */
    size_t length;
};

/* ERR_IO: it cannot be read (why names it); ERR_FORMAT: it is empty or no regular file. `what` is what it should be, such as "model file". */
enum err mapped_file_open(struct mapped_file *f, const char *path, const char *what, struct why *why);
void mapped_file_close(struct mapped_file *f);

#endif
