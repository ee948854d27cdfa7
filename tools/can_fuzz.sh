#!/bin/bash
# Exit status 0 when this machine has a clang whose libFuzzer and sanitizers link (Debian: clang and libclang-rt-14-dev).
program=$(mktemp) || exit 1
trap 'rm -f "$program"' EXIT
echo '#include <stddef.h>
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) { return data && size ? 0 : 0; }' |
    clang -x c -fsanitize=fuzzer,address,undefined -o "$program" - 2>/dev/null
