/*
 * fuzz: what the targets of this folder share. Each is a libFuzzer program: clang, -fsanitize=fuzzer,address,undefined.
 * A target asks for more than survival where it can: what was read must say the same when it is read in another way.
 */
#ifndef QUIRE_TESTS_FUZZ_H
#define QUIRE_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* Path of a file of this folder, from $QUIRE_ROOT or the current directory. */
static inline const char *fuzz_path(char path[512], const char *name)
{
    const char *root = getenv("QUIRE_ROOT");
    snprintf(path, 512, "%s/tests/fuzz/%s", root ? root : ".", name);
    return path;
}

#endif
