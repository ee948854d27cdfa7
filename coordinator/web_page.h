/* web_page: the files of coordinator/web, as the build has put them into the program. */
#ifndef QUIRE_COORDINATOR_WEB_PAGE_H
#define QUIRE_COORDINATOR_WEB_PAGE_H

#include <stdbool.h>
#include <stddef.h>

struct web_file {
    const char *type;
    const unsigned char *bytes;
    size_t length;
};

/* The file that a browser asks for by this path; false: there is none. */
bool web_file_find(const char *path, struct web_file *file);

#endif
