#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Put the liburing of another Debian into a directory of its own, build/liburing/VERSION: its headers in include, its
# libraries in lib, its package file in lib/pkgconfig. Prints that directory. The packages come from the mirror of this
# machine's apt by an apt with state of its own, so nothing of this machine changes; they are kept.
#
# usage: liburing.sh SUITE        trixie (Debian 13), forky, sid, …
#
# To build with it, set PKG_CONFIG_PATH to DIRECTORY/lib/pkgconfig; to run with it, LD_LIBRARY_PATH to DIRECTORY/lib.
set -euo pipefail

cd "$(dirname "$0")/.."
. scripts/debian.sh

suite=${1:-}
if [[ ! $suite =~ ^[a-z]+$ ]] || [ $# -ne 1 ]; then
    echo "usage: liburing.sh SUITE, which is trixie, forky, sid, …" >&2
    exit 2
fi
keep=$PWD/build/liburing
state=$keep/apt-$suite

die() {
    echo "liburing: $suite: $*" >&2
    exit 1
}

# An apt that knows that one suite and has nothing installed.
options=(-q -o "Dir::Etc::SourceList=$state/sources.list" -o "Dir::Etc::SourceParts=$state/none"
    -o "Dir::Etc::PreferencesParts=$state/none" -o "Dir::State=$state" -o "Dir::State::Lists=$state/lists"
    -o "Dir::State::Status=$state/status" -o "Dir::Cache=$state" -o "Dir::Cache::Archives=$state/archives"
    -o "APT::Sandbox::User=root")

download() {
    local mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    mirror=$(debian_mirror) || die "no mirror of Debian in apt's configuration; set GYRE_DEBIAN_MIRROR"
    [ -f "$keyring" ] || die "no keys of Debian's archive; install debian-archive-keyring"
    mkdir -p "$state/lists/partial" "$state/archives/partial" "$state/debs" "$state/none"
    : >"$state/status"
    echo "deb [signed-by=$keyring] $mirror $suite main" >"$state/sources.list"
    apt-get "${options[@]}" update >&2 || die "apt-get update failed"
    (cd "$state/debs" && apt-get "${options[@]}" download liburing2 liburing-dev linux-libc-dev >&2) ||
        die "apt-get download failed"
}

# The packages of the suite as one tree of headers and libraries, moved to its place in one piece.
unpack() {
    local made=$state/made deb triplet version
    rm -rf "$made"
    mkdir -p "$made/out/lib"
    for deb in "$state"/debs/liburing*.deb; do
        dpkg-deb -x "$deb" "$made/in"
    done
    dpkg-deb -x "$state"/debs/linux-libc-dev*.deb "$made/kernel"
    triplet=$(cd "$made/in/usr/lib" && ls)
    mv "$made/in/usr/include" "$made/out/include"
    # The one header of the kernel's that liburing includes and an older system lacks (Linux 6.12).
    mkdir "$made/out/include/linux"
    mv "$made/kernel/usr/include/linux/blkdev.h" "$made/out/include/linux/"
    mv "$made/in/usr/lib/$triplet"/* "$made/out/lib/"
    version=$(sed -n 's/^Version: *//p' "$made/out/lib/pkgconfig/liburing.pc")
    [ -n "$version" ] || die "its liburing.pc has no version"
    # shellcheck disable=SC2016 # for pkg-config
    sed -i -e "s|^prefix=.*|prefix=$keep/$version|" -e 's|^libdir=.*|libdir=${prefix}/lib|' \
        -e 's|^includedir=.*|includedir=${prefix}/include|' "$made/out/lib/pkgconfig"/*.pc
    rm -rf "${keep:?}/$version"
    mv "$made/out" "$keep/$version"
    rm -rf "$made"
    echo "$keep/$version" >"$state/prefix"
}

if [ ! -f "$state/prefix" ] || [ ! -d "$(cat "$state/prefix")" ]; then
    rm -rf "$state/debs"
    download
    unpack
fi
cat "$state/prefix"
