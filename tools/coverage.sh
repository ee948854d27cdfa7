#!/bin/bash
# Prints the share of lines and functions that the unit tests reach, file by file; details under build/coverage/html.
set -eu
cd "$(dirname "$0")/.."
build=${BUILD:-build}
info=$build/coverage/coverage.info

find "$build/coverage" -name '*.gcda' -delete 2>/dev/null || true
make BUILD="$build" CARGO_TARGET="$build/cargo" VARIANT=coverage check
# The first capture counts the files that no test links, too.
capture=(lcov --quiet --capture --directory "$build/coverage" --base-directory . --no-external)
"${capture[@]}" --initial --output-file "$info.none"
"${capture[@]}" --output-file "$info.run"
lcov --quiet --add-tracefile "$info.none" --add-tracefile "$info.run" --output-file "$info"
lcov --quiet --remove "$info" '*/tests/*' '*/gen/*' --output-file "$info"
genhtml --quiet --output-directory "$build/coverage/html" "$info"
lcov --list "$info"
echo "line by line: $build/coverage/html/index.html"
