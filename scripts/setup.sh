#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Install what building, testing and demonstrating gyre needs, where it is missing. Called by `make demo`, `make test`
# and `make setup`; with everything in place it installs nothing and says nothing.
#
# usage: setup.sh [bench]. With `bench` (`make bench-setup`) also the servers that the benchmarks compare gyre with; the
# services that Debian starts for two of them are stopped again, if they were not there before.
#
# On Debian and Ubuntu it uses apt-get, through sudo when not root. Elsewhere it prints the command to run and fails.
set -euo pipefail

if [ $# -gt 1 ] || { [ $# -eq 1 ] && [ "$1" != bench ]; }; then
    echo "usage: setup.sh [bench]" >&2
    exit 2
fi
with_bench=${1:-}

liburing_min=2.3

# What is needed, by Debian's package names, and how to see that it is there already, however it came.
missing=()
need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

look() {
    missing=()
    need gcc command -v gcc
    need g++ command -v g++
    need libc6-dev sh -c 'echo "#include <stdlib.h>" | cc -E -'
    need make command -v make
    need cmake command -v cmake
    need pkg-config command -v pkg-config
    need python3 command -v python3
    need libcriterion-dev pkg-config --exists criterion
    need libuv1-dev pkg-config --exists libuv
    if [ "$(uname -s)" = Linux ]; then
        need liburing-dev pkg-config --exists "liburing >= $liburing_min"
    fi
    if [ -n "$with_bench" ]; then
        look_for_peers
    fi
}

has_header() {
    echo "#include <$1>" | c++ -x c++ -E -
}

look_for_peers() {
    need libevent-dev pkg-config --exists libevent_core
    need libev-dev has_header ev.h
    need libasio-dev has_header asio.hpp
    need haproxy env PATH="$PATH:/usr/sbin" haproxy -v
    need nginx env PATH="$PATH:/usr/sbin" nginx -v
    need libnginx-mod-stream test -e /usr/lib/nginx/modules/ngx_stream_module.so
}

os_ids() {
    # A file of shell assignments, os-release(5).
    (. /etc/os-release 2>/dev/null && echo "${ID:-} ${ID_LIKE:-}") || true
}

# The command for the systems whose package names we know.
other_command() {
    case "$(uname -s) $(os_ids)" in
    Darwin*) echo "brew install cmake pkgconf criterion libuv python3" ;;
    *fedora* | *rhel*)
        echo "sudo dnf install gcc gcc-c++ make cmake pkgconf-pkg-config liburing-devel criterion-devel libuv-devel" \
            "python3"
        ;;
    *arch*) echo "sudo pacman -S --needed gcc make cmake pkgconf liburing criterion libuv python" ;;
    *suse*)
        echo "sudo zypper install gcc gcc-c++ make cmake pkgconf liburing-devel criterion-devel libuv-devel python3"
        ;;
    *) return 1 ;;
    esac
}

install_with_apt() {
    local sudo=()
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "setup: not root, and there is no sudo. Run as root: apt-get install -y ${missing[*]}" >&2
            exit 1
        fi
        sudo=(sudo)
    fi
    local service fresh=()
    for service in haproxy nginx; do
        case " ${missing[*]} " in *" $service "*) fresh+=("$service") ;; esac
    done
    echo "setup: installing ${missing[*]}"
    "${sudo[@]}" apt-get update -q
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
    # The benchmarks run these with settings of their own; what was installed a moment ago serves nobody else.
    for service in ${fresh[@]+"${fresh[@]}"}; do
        if command -v systemctl >/dev/null; then
            "${sudo[@]}" systemctl --quiet disable "$service" >/dev/null 2>&1 || true
        fi
        if [ -d /run/systemd/system ]; then
            "${sudo[@]}" systemctl --quiet stop "$service" || true
        elif command -v service >/dev/null; then
            "${sudo[@]}" service "$service" stop >/dev/null 2>&1 || true
        fi
    done
}

look
if [ ${#missing[@]} -gt 0 ]; then
    if command -v apt-get >/dev/null && command -v dpkg >/dev/null; then
        install_with_apt
    elif command=$(other_command); then
        printf 'setup: missing (by their Debian names): %s\nInstall them with:\n\n    %s\n\n' \
            "${missing[*]}" "$command" >&2
        exit 1
    else
        echo "setup: missing (by their Debian names): ${missing[*]}. Install them and try again." >&2
        exit 1
    fi
    look
    if [ ${#missing[@]} -gt 0 ]; then
        echo "setup: still missing after installing: ${missing[*]}" \
            "(liburing $liburing_min or newer is needed; Debian 12 and Ubuntu 24.04 have it)." >&2
        exit 1
    fi
fi

"$(dirname "$0")/need_cmake.sh"
