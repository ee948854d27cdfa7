#!/bin/bash
# Installs the system packages of one purpose, only those that lack, and says which. With all there it asks the package
# database once and does nothing.
#
#   install_packages.sh build    what compiling and running need
#   install_packages.sh test     what only the tests need: a browser and its driver for the page's tests, Python environments
#   install_packages.sh lint     what only lint and coverage need; 0.5 GB, so not part of `build`
#
# Debian 12, Debian 13 and Ubuntu 24.04 name these packages alike; what differs is treated below where it does.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1

build=(gcc libc6-dev make pkg-config python3 python3-pip
    libzmq3-dev libprotobuf-c-dev protobuf-c-compiler libevent-dev libjansson-dev libpcre2-dev
    libopenblas-dev libnuma-dev libhwloc-dev libcmocka-dev)
test=(python3-venv)
lint=(clang clang-format cppcheck lcov)

# The oldest versions that the code is written for; those of Debian 12.
minimum=('libzmq >= 4.3.4' 'libprotobuf-c >= 1.4.1' 'libevent >= 2.1.12')

say()
{
    echo "deps: $*"
}

stop() # REASON
{
    echo "deps: $*" >&2
    exit 1
}

as_root()
{
    if [ "$(id -u)" = 0 ]; then
        env DEBIAN_FRONTEND=noninteractive "$@"
    elif command -v sudo >/dev/null; then
        sudo env DEBIAN_FRONTEND=noninteractive "$@"
    else
        stop "this needs root or sudo: $*"
    fi
}

# Prints those of the named packages that are not installed. One that another package provides counts as installed.
lacking()
{
    dpkg-query -W -f='${db:Status-Status} ${Package}, ${Provides}\n' 2>/dev/null | awk -v wanted="$*" '
        $1 == "installed" {
            $1 = ""
            gsub(/\([^)]*\)/, "")
            n = split($0, names, /[ ,]+/)
            for (i = 1; i <= n; i++)
                have[names[i]] = 1
        }
        END {
            n = split(wanted, names, " ")
            for (i = 1; i <= n; i++)
                if (!(names[i] in have))
                    print names[i]
        }'
}

candidate_version() # PACKAGE: what apt would install, nothing when it knows none
{
    apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: \([0-9].*\)/\1/p'
}

# Prints the package whose cargo builds model/jinja. Debian 13: cargo. Debian 12: its cargo is too old, cargo-web is the
# same program, kept new for browsers. Ubuntu 24.04: one of the versioned ones.
cargo_package()
{
    local wanted package version
    wanted=$(tools/find_cargo.sh --wanted)
    for package in cargo cargo-web $(apt-cache search --names-only '^cargo-1\.[0-9]+$' | cut -d' ' -f1 | sort -V); do
        version=$(candidate_version "$package")
        if [ -n "$version" ] && dpkg --compare-versions "$version" ge "$wanted"; then
            echo "$package"
            return
        fi
    done
    stop "no package of this system holds cargo $wanted or newer: install it from https://rustup.rs"
}

# The page's tests drive a browser through its driver: one without the other is as good as none.
browser_lacks()
{
    local browser
    command -v chromedriver >/dev/null || return 0
    for browser in chromium chromium-browser google-chrome google-chrome-stable; do
        command -v "$browser" >/dev/null && return 1
    done
    return 0
}

purpose=${1:-build}
case $purpose in
build | test | lint) ;;
*) stop "usage: $0 build|test|lint" ;;
esac
command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
    stop "this system has no apt: install by hand what $0 lists, then build with \`make\`"

# What clang links fuzz targets and sanitizers with is a package of its own, numbered like the clang that this system has.
if [ "$purpose" = lint ]; then
    clang=$(apt-cache depends clang 2>/dev/null | sed -n 's/^ *Depends: clang-\([0-9]*\)$/\1/p')
    [ -z "$clang" ] || lint+=("libclang-rt-$clang-dev")
fi
declare -n packages=$purpose
mapfile -t missing < <(lacking "${packages[@]}")

updated=
update_once()
{
    [ -n "$updated" ] || as_root apt-get update -q || say "no new package lists were to be had: using the old"
    updated=yes
}

if [ "$purpose" = build ] && ! tools/find_cargo.sh >/dev/null 2>&1; then
    update_once
    package=$(cargo_package) || exit 1
    missing+=("$package")
fi
if [ "$purpose" = test ] && browser_lacks; then
    # Ubuntu's chromium is a snap, which runs in no container: there the page's tests look for another browser or skip.
    if grep -q '^ID=debian' /etc/os-release; then
        missing+=(chromium chromium-driver)
    else
        say "no Chromium or Chrome with its chromedriver on PATH and no package of them here: the page's tests will be skipped"
    fi
fi

if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    update_once
    as_root apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=600 "${missing[@]}" ||
        stop "could not install ${missing[*]}: apt says why above"
fi

if [ "$purpose" = build ]; then
    for requirement in "${minimum[@]}"; do
        pkg-config --exists "$requirement" ||
            stop "$requirement is needed, here it is $(pkg-config --modversion "${requirement%% *}" 2>/dev/null)"
    done
    tools/find_cargo.sh >/dev/null || exit 1
fi
