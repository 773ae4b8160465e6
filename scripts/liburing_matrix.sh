#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# gyre over io_uring with every liburing that can be had. These are the one of this machine, that of Debian 13, and the
# newest of Debian; each of the last two is loaded by what was built with the first, and is built with. Release builds.
#
# usage: liburing_matrix.sh [SUITE…]      the Debians to take liburing from (trixie sid)
#
# Each combination runs the contract suite on io_uring, the examples' tests, and a program that finds out which backend
# and which liburing it got, and whether its descriptors 0 to 2 were left alone, under strace too. Prints one line for
# each, and how many passed. Exits with 1 unless all did. The programs are in build/release and build/liburing.
set -euo pipefail

cd "$(dirname "$0")/.."
keep=$PWD/build/liburing
jobs=$(nproc)
failed=0
passed=0
export GYRE_TEST_REQUIRE=io_uring GYRE_TEST_ONLY=io_uring
mkdir -p "$keep"
command -v strace >/dev/null || {
    echo "liburing_matrix: no strace; install it (apt-get install strace)" >&2
    exit 1
}

# Build what a combination runs in $1; the rest are settings for CMake.
build() {
    local dir=$1
    shift
    cmake -S . -B "$dir" -DCMAKE_BUILD_TYPE=Release --log-level=WARNING "$@" &&
        cmake --build "$dir" --parallel "$jobs" --target gyre_product test_contract
}

# The library's version in the cache of a build: what it was built with.
built_with() { sed -n 's/^LIBURING_VERSION:INTERNAL=//p' "$1/CMakeCache.txt"; }

# Trace a program that was given files as its descriptors 0 to 2, and print what it closed that is not its own.
traced() {
    local trace=$1
    shift
    strace -f -qq -e trace=%desc,%network,io_uring_setup -o "$trace" "$@" <README.md >"$trace.1" 2>"$trace.2"
}

# The check of closes has to find one.
prove_closes() {
    traced "$keep/prove" bash -c 'exec 0<&-'
    if scripts/closes.py "$keep/prove" >"$keep/prove.found" || ! grep -q '^close(0)' "$keep/prove.found"; then
        echo "liburing_matrix: a program that closes descriptor 0 is not found out" >&2
        exit 1
    fi
}

# Run everything of the build $1, expecting the liburing $2. Prints what went well, or says what did not and fails.
examine() {
    local dir=$1 version=$2 work=$1/matrix report contract examples closes
    rm -rf "$work"
    mkdir -p "$work"
    cc -std=c11 -D_GNU_SOURCE -Iinclude tests/interop/descriptors.c -o "$work/descriptors" \
        -L"$dir" -lgyre -Wl,-rpath,"$dir" -Wl,-rpath-link,"${LD_LIBRARY_PATH:-$(dirname "$(liburing_of "$dir")")}"
    "$work/descriptors" "$work/report" <README.md >"$work/1" 2>"$work/2" || true
    report=$(cat "$work/report" 2>/dev/null || echo "nothing")
    [ "$report" = "io_uring liburing.so.$version kept" ] || {
        echo "it reports: $report"
        return 1
    }
    traced "$work/trace" "$work/descriptors" "$work/report" || {
        echo "under strace it reports: $(cat "$work/report")"
        return 1
    }
    closes=$(scripts/closes.py "$work/trace") || {
        echo "$closes"
        return 1
    }
    timeout 600 "$dir/tests/test_contract" --timeout 120 --jobs "$jobs" >"$work/contract" 2>&1 || {
        grep -aE '^\[(FAIL|----|CRASH|====)\]' "$work/contract" | tail -n 20
        return 1
    }
    contract=$(sed -n 's/.*Synthesis: Tested: \([0-9]*\) | Passing: \([0-9]*\) .*/\2 of \1 cases/p' "$work/contract")
    if [[ ! $contract =~ ^([1-9][0-9]*)\ of\ ([0-9]+) || ${BASH_REMATCH[1]} != "${BASH_REMATCH[2]}" ]]; then
        echo "contract suite: ${contract:-nothing}"
        return 1
    fi
    examples=$(timeout 300 python3 examples/test_examples.py "$dir/examples" io_uring 2>&1) || {
        echo "$examples"
        return 1
    }
    echo "io_uring with $version loaded; contract suite $contract; examples ${examples##*$'\n'};" \
        "0 to 2 kept, $closes closes, all of its own"
}

# The liburing that the library in $1 loads as things are.
liburing_of() { ldd "$1/libgyre.so" | sed -n 's/.*liburing\.so\.2 => \([^ ]*\).*/\1/p'; }

# One combination: what it is, the build, and the liburing that has to be loaded.
combination() {
    local what=$1 result
    if result=$(examine "$2" "$3" 2>&1); then
        echo "liburing: $what: $result"
        passed=$((passed + 1))
    else
        echo "liburing: $what: FAILED: $result"
        failed=$((failed + 1))
    fi
}

# Build in $1 with the settings after it, with its output in a file.
quietly_build() {
    local out=$keep/build-${1##*/}.log
    if ! build "$@" >"$out" 2>&1; then
        grep -E 'error|Error' "$out" | head -n 10
        echo "liburing: $1 does not build; all it said is in $out"
        failed=$((failed + 1))
        return 1
    fi
}

suites=("$@")
[ $# -gt 0 ] || suites=(trixie sid)
prove_closes
quietly_build "$PWD/build/release"
here=$(built_with "$PWD/build/release")
combination "built and run with $here" "$PWD/build/release" "$here"
for suite in "${suites[@]}"; do
    if ! prefix=$(scripts/liburing.sh "$suite" 2>"$keep/$suite.log"); then
        tail -n 3 "$keep/$suite.log"
        echo "liburing: $suite: none to be had"
        failed=$((failed + 1))
        continue
    fi
    version=${prefix##*/}
    LD_LIBRARY_PATH=$prefix/lib combination "built with $here, run with $version" "$PWD/build/release" "$version"
    if PKG_CONFIG_PATH=$prefix/lib/pkgconfig quietly_build "$keep/with-$version" \
        -DGYRE_BUILD_BENCH=OFF; then
        if [ "$(built_with "$keep/with-$version")" = "$version" ]; then
            combination "built and run with $version" "$keep/with-$version" "$version"
        else
            echo "liburing: FAILED: $keep/with-$version was built with $(built_with "$keep/with-$version")"
            failed=$((failed + 1))
        fi
    fi
done
echo "liburing: $passed passed, $failed failed"
[ "$failed" = 0 ]
