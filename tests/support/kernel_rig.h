/*
 * kernel_rig: random inputs, and every kernel set that this machine can run beside the reference. QUIRE_LONG=1: more shapes;
 * QUIRE_SEED sets the seed.
 */
#ifndef QUIRE_TESTS_KERNEL_RIG_H
#define QUIRE_TESTS_KERNEL_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/kernels/kernels.h"

/* First of all: from QUIRE_SEED, or another one each time; it is printed. */
void kernel_rig_seed(void);

uint32_t random_bits(void);

uint32_t random_below(uint32_t bound);

/* Mostly near [-1, 1], over some orders of magnitude. */
float random_float(void);

bool long_form(void);

/* Aligned for kernels; of no particular bytes. */
void *allocate(size_t bytes);

/* Bit for bit, but for the payload of a NaN. */
void assert_same_floats(const char *what, const float *got, const float *expected, size_t n);

typedef void (*each_set)(const struct kernels *k);

/* Calls `check` with every set but the reference, emulated ones too (tile_emulator.h). */
void for_each_set(each_set check);

/* Kinds of inputs: ordinary; extreme codes; zeros and tiny values; not finite. */
void fill_inputs(float *x, size_t n, uint32_t kind);

#endif
