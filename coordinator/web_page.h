/* web_page: the files of coordinator/web, as the build has put them into the program. */
#ifndef QUIRE_COORDINATOR_WEB_PAGE_H
#define QUIRE_COORDINATOR_WEB_PAGE_H

#include <stddef.h>

struct web_file {
    const char *path; /* as a browser asks for it */
    const char *type;
    const unsigned char *bytes;
    size_t length;
};

/* NULL: there is none at that path. */
const struct web_file *web_file_find(const char *path);

#endif
