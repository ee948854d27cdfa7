#!/bin/bash
# Prints the command that runs a cargo able to build model/jinja, or says which version is wanted.
# The one on PATH may be too old while a newer one stands beside it: Ubuntu keeps each version in /usr/lib/rust-VERSION.
#
#   find_cargo.sh             the command
#   find_cargo.sh --wanted    the oldest version that will do
set -u
cd "$(dirname "$0")/.." || exit 1

wanted=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' model/jinja/Cargo.toml 2>/dev/null)
wanted=${wanted:-1.75}
if [ "${1:-}" = --wanted ]; then
    echo "$wanted"
    exit 0
fi

new_enough() # COMMAND
{
    local version
    version=$("$1" --version 2>/dev/null | sed -n 's/^cargo \([0-9.]*\).*/\1/p')
    [ -n "$version" ] && printf '%s\n%s\n' "$wanted" "$version" | sort -V -C
}

for cargo in cargo "${HOME:-/root}/.cargo/bin/cargo"; do
    if command -v "$cargo" >/dev/null && new_enough "$cargo"; then
        echo "$cargo"
        exit 0
    fi
done
for folder in $(printf '%s\n' /usr/lib/rust-1.*/bin | sort -rV); do
    if [ -x "$folder/cargo" ] && [ -x "$folder/rustc" ] && new_enough "$folder/cargo"; then
        echo "env RUSTC=$folder/rustc $folder/cargo"      # it would otherwise take the rustc on PATH
        exit 0
    fi
done
echo "no cargo of version $wanted or newer was found: run \`make deps\`" >&2
exit 1
