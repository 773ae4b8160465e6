#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# One way of using gyre from outside its tree, from an empty directory to a program that ran:
#
#     consume.sh install|pkgconfig-prefix|pkgconfig-shared|pkgconfig-static|cmake-c|cmake-cxx|subdirectory|older|ctypes
#
# `install` makes the prefix the others use. tests/interop/CMakeLists.txt sets the environment: GYRE_SOURCE, GYRE_BUILD
# (the build tree to install), GYRE_WORK (where to work), GYRE_LIBDIR (lib, or what the system says), CC, CXX, CMAKE.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
prefix=$GYRE_WORK/prefix
libdir=$prefix/$GYRE_LIBDIR
export PKG_CONFIG_PATH=$libdir/pkgconfig
kind=$1
work=$GYRE_WORK/$kind

die() {
    echo "consume: $kind: $*" >&2
    exit 1
}

needed() { readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\].*/\1/p'; }

# Run a consumer; it must have echoed, and over io_uring where that is required.
check_run() {
    local output
    output=$(LD_LIBRARY_PATH=$libdir timeout 60 "$@") || die "$* failed"
    echo "$1: $output"
    case "$output" in
    "echoed "*" bytes over "*) ;;
    *) die "unexpected output" ;;
    esac
    case ",${GYRE_TEST_REQUIRE:-}," in
    *,io_uring,*) [[ $output == *" over io_uring" ]] || die "io_uring is required, and another backend was chosen" ;;
    esac
}

cmake_project() {
    "$CMAKE" -S "$here/$1" -B "$work" -DCMAKE_BUILD_TYPE=Release "${@:2}"
    "$CMAKE" --build "$work" --parallel 2
}

do_install() {
    # Installed in one place and moved to another: what was installed must not depend on where.
    "$CMAKE" --install "$GYRE_BUILD" --prefix "$work"
    rm -rf "$prefix"
    mv "$work" "$prefix"
    diff -r -x '*.md' "$GYRE_SOURCE/include" "$prefix/include" || die "the headers differ"
    [ "$(readelf -d "$libdir/libgyre.so" | sed -n 's/.*(SONAME).*\[\(.*\)\].*/\1/p')" = libgyre.so.0 ] || die "soname"
    [ -L "$libdir/libgyre.so.0" ] || die "no link libgyre.so.0"
    [ -f "$libdir/libgyre.a" ] || die "no static library"
    for paper in LICENSE CHANGELOG.md; do
        [ -f "$prefix/share/doc/gyre/$paper" ] || die "no $paper"
    done
    if grep -rlF -e "$GYRE_BUILD" -e "$GYRE_SOURCE" "$prefix" --include='*.pc' --include='*.cmake'; then
        die "these name the build tree"
    fi
    if grep -alF -e "$GYRE_BUILD" -e "$GYRE_SOURCE" "$libdir"/libgyre.*; then
        die "these have paths of the build tree in them"
    fi
    pkg-config --validate gyre
}

# What pkg-config says of a tree staged in $work/root for the prefix $1 with the library directory $2 has to be $3.
expect_flags() {
    local found
    DESTDIR=$work/root "$CMAKE" --install "$work/build" --component pkgconfig --prefix "$1"
    found=$(PKG_CONFIG_PATH=$work/root$1/$2/pkgconfig pkg-config --cflags --libs gyre)
    [ "${found% }" = "$3" ] || die "under $1: pkg-config says '$found', which should be '$3'"
}

do_pkgconfig_prefix() {
    # gyre.pc alone, which can be installed before anything is built; the directories are those of a Debian package.
    local libdir=lib/multiarch-triplet moved
    "$CMAKE" -S "$GYRE_SOURCE" -B "$work/build" -DCMAKE_INSTALL_PREFIX=/usr -DCMAKE_INSTALL_LIBDIR=$libdir \
        -DGYRE_BUILD_TESTS=OFF -DGYRE_BUILD_EXAMPLES=OFF -DGYRE_BUILD_BENCH=OFF
    PKG_CONFIG_SYSTEM_LIBRARY_PATH=/usr/$libdir expect_flags /usr $libdir "-lgyre"
    expect_flags /usr/local $libdir "-I/usr/local/include -L/usr/local/$libdir -lgyre"
    expect_flags /opt/x $libdir "-I/opt/x/include -L/opt/x/$libdir -lgyre"
    # Anywhere else the tree may be moved.
    "$CMAKE" --install "$work/build" --component pkgconfig --prefix "$work/before"
    mv "$work/before" "$work/after"
    mkdir "$work/after/include"
    moved=$(PKG_CONFIG_PATH=$work/after/$libdir/pkgconfig pkg-config --cflags-only-I gyre)
    moved=${moved#-I}
    [ "$(cd "${moved% }" && pwd -P)" = "$(cd "$work/after/include" && pwd -P)" ] || die "moved: $moved"
}

do_pkgconfig_shared() {
    # shellcheck disable=SC2046 # flags are words
    "$CC" -std=c11 -Wall -Wextra -Wpedantic -Werror "$here/consumer.c" -o "$work/consumer" \
        $(pkg-config --cflags --libs gyre)
    needed "$work/consumer" | grep -qx libgyre.so.0 || die "not linked to libgyre.so.0"
    if needed "$work/consumer" | grep -q uring; then
        die "a user of the shared library is made to link liburing"
    fi
    check_run "$work/consumer"
}

do_pkgconfig_static() {
    # The archive by its name, since the linker would take the shared library that lies beside it.
    local flags
    flags=$(pkg-config --cflags --libs --static gyre)
    # shellcheck disable=SC2086 # flags are words
    "$CC" -std=c11 "$here/consumer.c" -o "$work/consumer" ${flags/-lgyre/-l:libgyre.a}
    if needed "$work/consumer" | grep -q gyre; then
        die "still linked to the shared library"
    fi
    check_run "$work/consumer"
    # Without any shared library at all, where the system has liburing as an archive.
    if [ -f "$(pkg-config --variable=libdir liburing)/liburing.a" ]; then
        # shellcheck disable=SC2086
        "$CC" -std=c11 -static "$here/consumer.c" -o "$work/consumer_alone" $flags
        [ -z "$(needed "$work/consumer_alone")" ] || die "the static program needs shared libraries"
        check_run "$work/consumer_alone"
    fi
}

do_cmake() {
    cmake_project "$1" -DCMAKE_PREFIX_PATH="$prefix"
    check_run "$work/consumer_shared"
    check_run "$work/consumer_static"
}

do_subdirectory() {
    cmake_project subdirectory -DGYRE_SOURCE="$GYRE_SOURCE"
    if "$CMAKE" --build "$work" --target help | grep -E 'Experimental|Nightly|Continuous'; then
        die "these targets of a dashboard are in a user's project"
    fi
    check_run "$work/consumer_static"
}

# A program that was compiled with the headers of before, with the library of today.
do_older() {
    "$CC" -std=c11 -Wall -Wextra -Wpedantic -Werror "-I$here/older" "$here/consumer.c" -o "$work/consumer" \
        "-L$libdir" -lgyre
    check_run "$work/consumer"
}

rm -rf "$work"
mkdir -p "$work"
case $kind in
install) do_install ;;
pkgconfig-prefix) do_pkgconfig_prefix ;;
pkgconfig-shared) do_pkgconfig_shared ;;
pkgconfig-static) do_pkgconfig_static ;;
cmake-c) do_cmake cmake_c ;;
cmake-cxx) do_cmake cmake_cxx ;;
subdirectory) do_subdirectory ;;
older) do_older ;;
ctypes) check_run python3 "$here/ctypes_echo.py" "$libdir/libgyre.so.0" ;;
*) die "no such way" ;;
esac
