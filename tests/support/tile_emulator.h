/*
 * tile_emulator: AMX int8 for processors that do not have it. What such a processor does at an instruction it does not
 * know, a SIGILL, is answered by doing what the instruction says (Intel's Software Developer's Manual, volume 2), so that
 * the very machine code of the set `amx` runs. A use that a real processor would refuse ends the program with a line.
 */
#ifndef QUIRE_TESTS_TILE_EMULATOR_H
#define QUIRE_TESTS_TILE_EMULATOR_H

#include "model/kernels/kernels.h"

/*
 * kernels_runnable, and `amx` where the processor lacks only the tile unit: the emulator stands in from then on, for all
 * threads. Best last.
 */
const struct kernels *const *kernels_with_emulated(uint32_t *count);

/* Whether this thread's tile registers are not in use: emulated ones after TILERELEASE; true without the emulator. */
bool tiles_are_released(void);

#endif
