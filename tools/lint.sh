#!/bin/bash
# All static checks, one after the other; a broken one does not hide the next. Exit status 1 when any found something.
set -u
cd "$(dirname "$0")/.." || exit 1
build=${BUILD:-build}
broken=()

check() # NAME COMMAND...
{
    local name=$1
    shift
    echo "== $name"
    "$@" || broken+=("$name")
}

# Full builds: many warnings need the optimiser. The Rust library is the same for all.
compile_with() # COMPILER
{
    make -k BUILD="$build/lint-$1" CARGO_TARGET="$build/cargo" CC="$1" all tests benches
}

formatted()
{
    git ls-files --cached --others --exclude-standard '*.c' '*.h' | xargs -r clang-format --dry-run -Werror &&
        return
    echo "\`make format\` repairs this ($(clang-format --version); the tree follows version 14)"
    return 1
}

# What is off: style hints of taste, and what the compilers already say.
analysed()
{
    local folders=() folder
    for folder in base shm proto model coordinator worker; do
        [ -n "$(find $folder -name '*.c' -print -quit 2>/dev/null)" ] && folders+=("$folder")
    done
    cppcheck --quiet --error-exitcode=1 --enable=warning,performance,portability --std=c11 --inline-suppr \
        --suppressions-list=tools/cppcheck_suppressions.txt -j 2 \
        -I. -I"$build/gen" -D_GNU_SOURCE -D__x86_64__ -D__linux__ -D__SIZEOF_SIZE_T__=8 "${folders[@]}"
}

check "house rules" tools/lint_rules.py
check "warnings of gcc" compile_with gcc
check "warnings of clang" compile_with clang
check "format" formatted
check "cppcheck" analysed

if [ ${#broken[@]} -gt 0 ]; then
    printf 'lint: found something: %s\n' "$(IFS=,; echo "${broken[*]}")"
    exit 1
fi
echo "lint: nothing found"
