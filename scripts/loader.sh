#!/bin/sh
# SPDX-License-Identifier: MIT
# After installing: have the loader find libgyre.so in the directory LIBDIR with ldconfig, if it searches there at all.
# Otherwise print one line that says what to do. With DESTDIR nothing of this system is touched.
#
# usage: loader.sh LIBDIR
set -eu
libdir=$1
PATH=$PATH:/usr/sbin:/sbin # where ldconfig is, and where a user's PATH may not lead

# Whether the loader's configuration or its own list has the directory, by whatever name. Writes nothing.
searched() {
    for dir in $(ldconfig -N -X -v 2>/dev/null | sed -n 's|^\(/[^:]*\):.*|\1|p'); do
        if [ "$dir" -ef "$libdir" ]; then
            return 0
        fi
    done
    return 1
}

hint="set LD_LIBRARY_PATH=$libdir, or link programs with -Wl,-rpath,$libdir"
if [ -n "${DESTDIR:-}" ]; then
    echo "Staged below $DESTDIR. Once it is in place, run ldconfig if the loader searches $libdir; else $hint."
elif ! searched; then
    echo "The loader does not search $libdir: $hint."
elif [ "$(id -u)" != 0 ]; then
    echo "Run ldconfig as root, so that the loader finds the library in $libdir; or $hint."
else
    ldconfig
fi
