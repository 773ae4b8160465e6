#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Installing, as `make install` does it:
#
#     installing.sh bare|papers|needs|loader
#
# bare      on a machine with only a C compiler, make, cmake, pkg-config and liburing
# papers    the pages in share/doc/gyre, and where their links lead
# needs     what is said when cmake, pkg-config or liburing is missing or old
# loader    when ldconfig runs, and what is said when it does not
#
# tests/interop/CMakeLists.txt sets the environment, as for consume.sh.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
kind=$1
work=$GYRE_WORK/installing-$kind
prefix=$work/prefix

die() {
    echo "installing: $kind: $*" >&2
    exit 1
}

# A folder of programs that is the whole PATH: the C compiler, what make and cmake call, and the shell's own.
make_bin() {
    local name found
    mkdir -p "$work/bin"
    for name in sh bash env make cmake pkg-config gcc as ld ar nm ranlib strip objcopy objdump readelf ldconfig \
        basename cat chmod cp cut date dirname expr false grep head id install ln ls mkdir mv nproc printf pwd \
        rm rmdir sed sort tail test touch tr true uname wc; do
        if found=$(type -P "$name"); then
            ln -sf "$found" "$work/bin/$name"
        fi
    done
    ln -sf "$CMAKE" "$work/bin/cmake"
    ln -sf "$(type -P "$CC")" "$work/bin/cc"
}

# A program of the test's in that folder.
fake() {
    rm -f "$work/bin/$1"
    { echo '#!/bin/sh'; cat; } >"$work/bin/$1"
    chmod +x "$work/bin/$1"
}

# pkg-config then knows liburing alone.
hide_other_packages() {
    mkdir -p "$work/pkgconfig"
    cp "$(pkg-config --variable=pcfiledir liburing)/liburing.pc" "$work/pkgconfig/"
}

# Run a command in the source tree with that PATH, those packages, and nothing else of the environment.
bare() {
    (cd "$work/source" && env -i PATH="$work/bin" HOME="$work" PKG_CONFIG_LIBDIR="$work/pkgconfig" "$@")
}

copy_source() {
    mkdir -p "$work/source"
    (cd "$GYRE_SOURCE" && tar -cf - --exclude=build --exclude=.git .) | tar -C "$work/source" -xf -
}

# The command fails, and says the sentence; cmake breaks lines where it likes.
expect_failure() {
    local sentence=$1 output
    shift
    if output=$("$@" 2>&1); then
        die "this did not fail: $*"
    fi
    output=$(tr -s ' \n' ' ' <<<"$output")
    [[ $output == *"$sentence"* ]] || die "'$sentence' was not said, but: $output"
}

do_bare() {
    local output name
    copy_source
    make_bin
    hide_other_packages
    for name in c++ g++ clang++ python3; do
        [ -z "$(bare bash -c "type -P $name")" ] || die "$name is there"
    done
    if bare pkg-config --exists criterion; then
        die "Criterion is there"
    fi
    # Not optimised, which is a matter of time alone.
    output=$(bare make install PREFIX="$prefix" CMAKE_FLAGS=-DCMAKE_C_FLAGS_RELEASE=-O0) || die "it failed: $output"
    [[ $output == *"LD_LIBRARY_PATH=$prefix/lib"* ]] || die "not a word about the loader"
    [[ $output != *Building\ CXX* ]] || die "it compiled C++"
    if find "$work/source/build" -path '*example*' -name '*.o' -o -path '*bench*' -name '*.o' | grep .; then
        die "it compiled more than the library"
    fi
    for name in lib/libgyre.so lib/libgyre.a lib/pkgconfig/gyre.pc lib/cmake/gyre/gyre-config.cmake include/gyre.h; do
        [ -e "$prefix/$name" ] || die "no $name"
    done
    "$CC" -std=c11 "$here/consumer.c" -o "$work/consumer" -I"$prefix/include" -L"$prefix/lib" -lgyre
    LD_LIBRARY_PATH=$prefix/lib timeout 60 "$work/consumer"
}

do_papers() {
    local doc=$prefix/share/doc/gyre paper
    copy_source
    mkdir -p "$work/source/bench/figures"
    echo '<svg xmlns="http://www.w3.org/2000/svg"/>' >"$work/source/bench/figures/test.svg"
    cat >>"$work/source/README.md" <<'LINKS'

One: [a page](include/gyre/COMING-FROM.md#gnet), [an example](examples/echo.c), [all of them](examples/),
[a header](include/gyre/conn.h), [a room](src/README.md),
[a web page](https://example.org/x), [here](#backends).
<picture><img src="bench/figures/test.svg" alt="nothing"></picture> `array[0](x)`; text; more [brackets].
LINKS
    echo '[the README](../../README.md), [the loop](loop.h)' >>"$work/source/include/gyre/COMING-FROM.md"
    "$CMAKE" -S "$work/source" -B "$work/build" -DCMAKE_INSTALL_PREFIX="$prefix" \
        -DGYRE_BUILD_TESTS=OFF -DGYRE_BUILD_EXAMPLES=OFF -DGYRE_BUILD_BENCH=OFF
    "$CMAKE" --install "$work/build" --component papers
    mkdir -p "$prefix/include"
    cp -r "$GYRE_SOURCE/include/." "$prefix/include/"
    for paper in README.md CHANGELOG.md LICENSE COMING-FROM.md examples/README.md examples/echo.c \
        examples/support/framed.c bench/figures/test.svg; do
        [ -f "$doc/$paper" ] || die "no $paper"
    done
    python3 "$here/links.py" "$doc" "$prefix" || die "links lead nowhere"
    tail -n 4 "$doc/README.md" >"$work/end"
    diff - "$work/end" <<'LINKS' || die "the links became others"
One: [a page](COMING-FROM.md#gnet), [an example](examples/echo.c), [all of them](examples),
[a header](../../../include/gyre/conn.h), a room (`src/README.md` in the source tree),
[a web page](https://example.org/x), [here](#backends).
<picture><img src="bench/figures/test.svg" alt="nothing"></picture> `array[0](x)`; text; more [brackets].
LINKS
    [ "$(tail -n 1 "$doc/COMING-FROM.md")" = '[the README](README.md), [the loop](../../../include/gyre/loop.h)' ] ||
        die "the links of COMING-FROM.md became others"
    # And the check can fail.
    echo '[nothing](nowhere.md)' >>"$doc/CHANGELOG.md"
    if python3 "$here/links.py" "$doc" "$prefix"; then
        die "links.py did not see a link that leads nowhere"
    fi
}

do_needs() {
    copy_source
    make_bin
    mkdir "$work/pkgconfig"
    expect_failure "liburing 2.3 or newer and pkg-config to find it; pkg-config knows no liburing. Install" \
        bare make install PREFIX="$prefix"
    printf 'Name: liburing\nDescription: old\nVersion: 2.1\n' >"$work/pkgconfig/liburing.pc"
    expect_failure "liburing 2.3 or newer and pkg-config to find it; liburing 2.1 was found. Install" \
        bare make install PREFIX="$prefix"
    expect_failure "pkg-config was not found. Install what is missing (Debian, Ubuntu: apt-get install pkg-config" \
        bare cmake --preset library -DCMAKE_DISABLE_FIND_PACKAGE_PkgConfig=ON
    bare cmake --preset library -DCMAKE_DISABLE_FIND_PACKAGE_PkgConfig=ON -DGYRE_WITH_URING=OFF ||
        die "it wants pkg-config without io_uring"
    # CMake of another version is not at hand; both checks are shown one.
    echo 'set(CMAKE_VERSION 3.22.1)
include(cmake/version.cmake)' >"$work/source/old.cmake"
    expect_failure "gyre needs CMake 3.25 or newer; this is CMake 3.22.1." bare cmake -P old.cmake
    echo 'echo "cmake version 3.22.1"' | fake cmake
    expect_failure "gyre needs cmake 3.25 or newer; $work/bin/cmake is 3.22.1." bare make install PREFIX="$prefix"
    rm "$work/bin/cmake"
    expect_failure "gyre needs cmake 3.25 or newer, and there is no cmake here." bare make install PREFIX="$prefix"
}

# Run loader.sh for that directory as that user; whether ldconfig ran is in $work/ran.
loader() {
    local libdir=$1 uid=$2
    shift 2
    echo "echo $uid" | fake id
    rm -f "$work/ran"
    output=$(env -i PATH="$work/bin" "$@" "$GYRE_SOURCE/scripts/loader.sh" "$libdir")
}

do_loader() {
    local ran=$work/ran output searched=$work/searched other=$work/other
    make_bin
    mkdir -p "$searched" "$other"
    ln -s searched "$work/link"
    # It lists the directories when asked to touch nothing (-N -X), and otherwise leaves a mark.
    fake ldconfig <<LDCONFIG
case "\$*" in
"-N -X -v") printf '%s\n' '/lib: (from <builtin>:0)' '	libc.so.6 -> libc.so.6' '$work/link: (from x:1)' ;;
*) touch '$ran' ;;
esac
case "\$*" in
"-N -X -v") printf '%s\n' '/lib: (from <builtin>:0)' '	libc.so.6 -> libc.so.6' '$work/link: (from x:1)' ;;
*) touch '$ran' ;;
esac
LDCONFIG
    loader "$searched" 0
    [ -e "$ran" ] && [ -z "$output" ] || die "searched, as root: ldconfig did not run, or it said: $output"
    loader "$searched" 1000
    [ ! -e "$ran" ] && [[ $output == "Run ldconfig as root"* ]] || die "searched, not as root: $output"
    loader "$other" 0
    [ ! -e "$ran" ] && [[ $output == *"LD_LIBRARY_PATH=$other"*"-Wl,-rpath,$other."* ]] || die "not searched: $output"
    loader "$searched" 0 DESTDIR=/somewhere
    [ ! -e "$ran" ] && [[ $output == *"/somewhere"*"LD_LIBRARY_PATH"* ]] || die "with DESTDIR: $output"
    [ "$(wc -l <<<"$output")" = 1 ] || die "more than one line: $output"
}

rm -rf "$work"
mkdir -p "$work"
case $kind in
bare) do_bare ;;
papers) do_papers ;;
needs) do_needs ;;
loader) do_loader ;;
*) die "no such test" ;;
esac
rm -rf "$work"
