#include "base/must.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

_Noreturn void must_fail(const char *what, const char *file, int line)
{
    char text[256];
    int n = snprintf(text, sizeof text, "quire: broken promise in %s:%d: %s\n", file, line, what);
    if (n > 0) {
        size_t len = (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
        ssize_t ignored = write(2, text, len);
        (void)ignored;
    }
    abort();
}
