# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2016 # $(…) in a format is for apt-get
# Sourced by the scripts that fetch from Debian: which mirror, and how to reach it. Both are read from the apt
# configuration of this machine when a script runs; nothing here names a host.

# Print the mirror of Debian: GYRE_DEBIAN_MIRROR, or the first one that this machine's apt uses. Fails if there is none.
debian_mirror() {
    local found=${GYRE_DEBIAN_MIRROR:-}
    if [ -z "$found" ] && command -v apt-get >/dev/null; then
        # Label is known once `apt-get update` has run; without it, the lines have the name of the site alone.
        found=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' 2>/dev/null |
            sed -n 1p)
        if [ -z "$found" ] && [ "$(. /etc/os-release && echo "$ID")" = debian ]; then
            found=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null | sed -n 1p)
        fi
    fi
    [ -n "$found" ] || return 1
    echo "$found"
}

# Print what another apt needs in its configuration to reach the mirror as this machine's does: proxies, and whether the
# dates of the mirror's files are believed.
debian_apt_settings() {
    if command -v apt-config >/dev/null; then
        apt-config dump | grep -E '^Acquire::(Check-Valid-Until|Check-Date|Retries|https?::Proxy(::[^ ]*)?) ' || true
    fi
}

# Put the proxy that apt uses into the environment, for debootstrap.
debian_export_proxy() {
    local proxy=
    if command -v apt-config >/dev/null; then
        eval "$(apt-config shell proxy Acquire::http::Proxy)"
    fi
    if [ -n "$proxy" ] && [ "$proxy" != DIRECT ]; then
        export http_proxy=$proxy
    fi
}
