#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum err because(struct why *why, enum err code, const char *format, ...)
{
    if (why) {
        va_list args;
        va_start(args, format);
        vsnprintf(why->text, sizeof why->text, format, args);
        va_end(args);
    }
    return code;
}

enum err because_errno(struct why *why, enum err code, const char *format, ...)
{
    int saved = errno;
    if (why) {
        va_list args;
        va_start(args, format);
        vsnprintf(why->text, sizeof why->text, format, args);
        va_end(args);
        size_t used = strlen(why->text);
        snprintf(why->text + used, sizeof why->text - used, ": %s", strerror(saved));
    }
    errno = saved;
    return code;
}
