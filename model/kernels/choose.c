/*
 * choose: which kernel sets this machine can run. __builtin_cpu_supports asks the processor and, through XGETBV, whether
 * the operating system saves the wide registers.
 */
#include <string.h>

#include "model/kernels/kernels.h"
#include "model/kernels/sets.h"

enum { SET_COUNT = 3 };

#if defined(__x86_64__)
static bool avx512_runnable(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
}
#endif

const struct kernels *const *kernels_runnable(uint32_t *count)
{
    static const struct kernels *sets[SET_COUNT];
    uint32_t n = 0;
    sets[n++] = &kernels_reference;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (avx512_runnable())
        sets[n++] = &kernels_avx512;
#endif
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
