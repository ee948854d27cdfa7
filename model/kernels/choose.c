/*
 * choose: which kernel sets this machine can run. __builtin_cpu_supports asks the processor and, through XGETBV, whether
 * the operating system saves the wide registers.
 */
#include <string.h>

#include "model/kernels/kernels.h"

#define SET_COUNT 1

const struct kernels *const *kernels_runnable(uint32_t *count)
{
    static const struct kernels *sets[SET_COUNT];
    uint32_t n = 0;
    sets[n++] = &kernels_reference;
    *count = n;
    return sets;
}

const struct kernels *kernels_choose(const char *name_or_null)
{
    uint32_t count;
    const struct kernels *const *sets = kernels_runnable(&count);
    if (!name_or_null)
        return sets[count - 1];
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(sets[i]->name, name_or_null) == 0)
            return sets[i];
    return NULL;
}
