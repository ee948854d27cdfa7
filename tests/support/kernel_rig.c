#include "tests/support/kernel_rig.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/float16.h"
#include "tests/support/tile_emulator.h"

static uint64_t random_state;

void kernel_rig_seed(void)
{
    const char *seed = getenv("QUIRE_SEED");
    random_state = seed ? strtoull(seed, NULL, 0) : (uint64_t)(uintptr_t)&seed;
    printf("seed %llu\n", (unsigned long long)random_state);
}

uint32_t random_bits(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

uint32_t random_below(uint32_t bound)
{
    return (uint32_t)((uint64_t)random_bits() * bound >> 32);
}

float random_float(void)
{
    float x = (float)(int32_t)random_bits() * 0x1p-31f;
    return random_below(8) ? x : ldexpf(x, (int)random_below(24) - 12);
}

bool long_form(void)
{
    return getenv("QUIRE_LONG") != NULL;
}

void *allocate(size_t bytes)
{
    void *memory = aligned_alloc(KERNEL_ALIGN, (bytes + KERNEL_ALIGN) / KERNEL_ALIGN * KERNEL_ALIGN);
    assert_non_null(memory);
    memset(memory, 0x5a, bytes);
    return memory;
}

void assert_same_floats(const char *what, const float *got, const float *expected, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (f32_bits(got[i]) == f32_bits(expected[i]) || (isnan(got[i]) && isnan(expected[i])))
            continue;
        fail_msg("%s: element %zu is %a, the reference says %a", what, i, (double)got[i], (double)expected[i]);
    }
}

void for_each_set(each_set check)
{
    uint32_t count;
    const struct kernels *const *sets = kernels_with_emulated(&count);
    for (uint32_t i = 1; i < count; i++)
        check(sets[i]);
    if (count == 1)
        skip();
}

void fill_inputs(float *x, size_t n, uint32_t kind)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = random_float();
        if (kind == 1)
            x[i] = random_below(2) ? 1.0f : -1.0f;
        if (kind == 2)
            x[i] = random_below(4) ? 0.0f : ldexpf(x[i], -(int)random_below(150));
        if (kind == 3 && random_below(200) == 0)
            x[i] = random_below(2) ? NAN : INFINITY;
    }
}
