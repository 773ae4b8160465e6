#!/bin/sh
# SPDX-License-Identifier: MIT
# `make install`: build the two libraries and install them under PREFIX. DESTDIR in the environment is honoured.
# It takes a C compiler, make, cmake, pkg-config and liburing; nothing for tests, examples or benchmarks.
#
# usage: install.sh PREFIX JOBS [CMAKE-OPTION...]
set -eu
prefix=$1
jobs=$2
shift 2
case $prefix in
/*) ;;
*) prefix=$PWD/$prefix ;;
esac
cd "$(dirname "$0")/.."
build=build/library

scripts/need_cmake.sh
cmake --preset library -DCMAKE_INSTALL_PREFIX="$prefix" "$@"
cmake --build "$build" --parallel "$jobs" --target gyre_shared gyre_static
cmake --install "$build"
libdir=$(sed -n 's/^CMAKE_INSTALL_LIBDIR:[A-Z]*=//p' "$build/CMakeCache.txt")
case $libdir in
/*) ;;
*) libdir=$prefix/$libdir ;;
esac
scripts/loader.sh "$libdir"
