#!/bin/bash
# Prints the newest cargo on this machine that can build model/jinja, or says which version is wanted.
# The one on PATH may be too old (Debian 12: 0.66) while a versioned one (Ubuntu: cargo-1.85) stands beside it.
set -u
cd "$(dirname "$0")/.." || exit 1
wanted=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' model/jinja/Cargo.toml 2>/dev/null)
wanted=${wanted:-1.75}

new_enough() # COMMAND
{
    local version
    version=$("$1" --version 2>/dev/null | sed -n 's/^cargo \([0-9.]*\).*/\1/p')
    [ -n "$version" ] && printf '%s\n%s\n' "$wanted" "$version" | sort -V -C
}

for cargo in cargo "$HOME/.cargo/bin/cargo" $(compgen -c cargo- | grep -E '^cargo-1\.[0-9]+$' | sort -rV -u); do
    if command -v "$cargo" >/dev/null && new_enough "$cargo"; then
        # A versioned cargo would otherwise take the plain rustc.
        case $cargo in
        cargo-*) echo "env RUSTC=rustc-${cargo#cargo-} $cargo" ;;
        *) echo "$cargo" ;;
        esac
        exit 0
    fi
done
echo "no cargo of version $wanted or newer was found: run \`make deps\`" >&2
exit 1
