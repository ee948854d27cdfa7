/* mapped_file: see mapped_file.h. */
#include "model/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum err mapped_file_open(struct mapped_file *f, const char *path, const char *what, struct why *why)
{
    enum err err = OK;
    struct stat st;
    *f = (struct mapped_file){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return because_errno(why, ERR_IO, "could not open %s \"%.300s\"", what, path);
    if (fstat(fd, &st) != 0) {
        err = because_errno(why, ERR_IO, "could not read %s \"%.300s\"", what, path);
    } else if (!S_ISREG(st.st_mode) || st.st_size <= 0) {
        err = because(why, ERR_FORMAT, "\"%.300s\" is %s, not a %s", path,
                      S_ISREG(st.st_mode) ? "empty" : "no regular file", what);
    } else {
        void *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes == MAP_FAILED)
            err = because_errno(why, ERR_IO, "could not map %s \"%.300s\"", what, path);
        else
            *f = (struct mapped_file){.bytes = bytes, .length = (size_t)st.st_size};
    }
    close(fd);
    return err;
}

void mapped_file_close(struct mapped_file *f)
{
    if (f->bytes)
        munmap((void *)(uintptr_t)f->bytes, f->length);
    *f = (struct mapped_file){0};
}
