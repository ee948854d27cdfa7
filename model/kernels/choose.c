/*
 * choose: which kernel sets this machine can run. __builtin_cpu_supports asks the processor and, through XGETBV,
 * whether the operating system saves the wide registers. Tile registers are large, so that Linux gives them only to
 * processes that ask (Documentation/arch/x86/xstate.rst).
 */
#include <string.h>

#include "model/kernels/kernels.h"
#include "model/kernels/sets.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(__x86_64__)
static bool f16c_runnable(void) /* has no name in clang's builtin */
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}

static bool avx2_runnable(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && f16c_runnable();
}

static bool avx512_runnable(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}

/*
 * Asks for the tile registers, for all threads of this process, those that start later, too; before worker/sandbox.c closes
 * the way. exec takes them back, so that each program asks for itself.
 */
static bool amx_runnable(void)
{
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    const unsigned tiles = 1u << 24, int8 = 1u << 25;     /* leaf 7, edx; gcc's and clang's names for them differ */
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || !(edx & tiles) || !(edx & int8))
        return false;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 && amx_agrees();
}
#endif

/* Best last; whatever runs one of them runs those before it. */
static const struct kernels *const sets[] = {
    &kernels_reference,
#if defined(__x86_64__)
    &kernels_avx2,
    &kernels_avx512,
    &kernels_amx,
#endif
};

const struct kernels *const *kernels_runnable(uint32_t *count)
{
    *count = 1;
#if defined(__x86_64__)
    __builtin_cpu_init();
    *count += avx2_runnable();
    *count += *count == 2 && avx512_runnable();
    *count += *count == 3 && amx_runnable();
#endif
    return sets;
}

const struct kernels *kernels_choose(const char *name_or_null)
{
    uint32_t count;
    kernels_runnable(&count);
    if (!name_or_null)
        return sets[count - 1];
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(sets[i]->name, name_or_null) == 0)
            return sets[i];
    return NULL;
}
