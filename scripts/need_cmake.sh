#!/bin/sh
# SPDX-License-Identifier: MIT
# Say in a sentence when there is no cmake or an old one: it would only say that it does not know the presets.
set -eu
needed=3.25
advice="Debian 12 and Ubuntu 24.04 have one (apt-get install cmake), and so has pip (pip install cmake)."

if ! command -v cmake >/dev/null 2>&1; then
    echo "gyre needs cmake $needed or newer, and there is no cmake here. $advice" >&2
    exit 1
fi
found=$(cmake --version | sed -n '1s/[^0-9]*\([0-9.]*\).*/\1/p')
if [ "$(printf '%s\n' "$needed" "$found" | sort -V | head -n 1)" != "$needed" ]; then
    echo "gyre needs cmake $needed or newer; $(command -v cmake) is $found. $advice" >&2
    exit 1
fi
