#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# What a person sees who follows the README on a fresh Debian: makes a minimal system in a directory, puts the committed
# tree there, and runs the README's commands word for word. Fails unless the demo ran over io_uring. Takes root and the
# network, and leaves nothing mounted: all mounts are in a namespace of its own.
#
# usage: fresh.sh bookworm|trixie
#
# The system and the packages it downloads are kept in build/fresh, so a second run is faster; remove that directory for
# a new system. The mirror is the one of this machine's apt, or GYRE_DEBIAN_MIRROR. Exits with 77 where no such system
# can be made (not root, no mirror, no namespaces), or with 1 if GYRE_TEST_REQUIRE names `fresh`.
set -euo pipefail

cd "$(dirname "$0")/.."
. scripts/debian.sh

release=${1:-}
case $release in
bookworm | trixie) ;;
*)
    echo "usage: fresh.sh bookworm|trixie" >&2
    exit 2
    ;;
esac
keep=build/fresh
system=$keep/$release.tar
log=$keep/$release.log

die() {
    echo "fresh: $release: $*" >&2
    exit 1
}

# A reason why this machine cannot make the system at all.
cannot() {
    case ",${GYRE_TEST_REQUIRE:-}," in *,fresh,*) die "$*" ;; esac
    echo "fresh: $release: skipped: $*" >&2
    exit 77
}

# The words of the README: the first `apt-get install …` of the section, and the first line of its code.
readme_section() { sed -n '/^## Two commands$/,/^## /p' README.md; }
# shellcheck disable=SC2016 # backticks are Markdown's
readme_make() { readme_section | sed -n 's/^[^`]*\(`make`[^`]*\)*`\(apt-get install [^`]*\)`.*/\2/p' | sed -n 1p; }
# shellcheck disable=SC2016
readme_demo() { readme_section | sed -n '/^```sh$/,/^```$/p' | sed -n 2p; }

# The base system as a tar file, which is made beside its place and moved there in one piece. debootstrap mounts things
# of its own in the system; these end with the namespace too.
make_system() {
    local mirror
    mirror=$(debian_mirror) || cannot "no mirror of Debian in apt's configuration; set GYRE_DEBIAN_MIRROR"
    debian_export_proxy
    echo "fresh: $release: making the base system"
    mount -t tmpfs -o size=3g,mode=755 base "$root"
    if ! debootstrap --variant=minbase "$release" "$root" "$mirror" >"$keep/$release.debootstrap" 2>&1; then
        tail -n 5 "$keep/$release.debootstrap" >&2
        cannot "debootstrap failed; all it said is in $keep/$release.debootstrap"
    fi
    tar -C "$root" --one-file-system -cf "$system.new" .
    mv "$system.new" "$system"
    umount -R "$root"
}

# Mount in $root what a container has.
mount_system() {
    local node
    mount -t proc proc "$root/proc"
    mount --rbind -o ro /sys "$root/sys"
    mount -t tmpfs -o mode=755,size=64k dev "$root/dev"
    for node in null zero full random urandom tty; do
        : >"$root/dev/$node"
        mount --bind "/dev/$node" "$root/dev/$node"
    done
    ln -s /proc/self/fd "$root/dev/fd"
    ln -s fd/0 "$root/dev/stdin"
    ln -s fd/1 "$root/dev/stdout"
    ln -s fd/2 "$root/dev/stderr"
    mkdir "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    mount -t tmpfs shm "$root/dev/shm"
    mount --bind "$keep/packages-$release" "$root/var/cache/apt/archives"
}

inside() {
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp TERM=dumb LANG=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive chroot "$root" /bin/sh -c "cd /srv/gyre && $1" </dev/null
}

# Runs as the first process of namespaces for mounts and processes, so everything ends with it.
run_inside() {
    root=$PWD/$keep/root
    trap 'umount -R -l "$root" 2>/dev/null || true' EXIT
    mount -t proc proc /proc
    [ -f "$system" ] || make_system
    mount -t tmpfs -o size=6g,mode=755 fresh "$root"
    tar -C "$root" -xf "$system"
    mount_system
    cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
    # As images of containers have it: no questions, no waiting for the disk. Packages stay for the next run.
    {
        debian_apt_settings
        echo 'APT::Get::Assume-Yes "true";'
        echo 'APT::Sandbox::User "root";'
    } >"$root/etc/apt/apt.conf.d/90fresh"
    echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/90fresh"
    mkdir -p "$root/srv/gyre"
    git archive HEAD | tar -C "$root/srv/gyre" -xf -

    inside "apt-get update -q" || die "apt-get update failed"
    echo "fresh: $release: \$ $make_command"
    inside "$make_command" || die "failed: $make_command"
    echo "fresh: $release: \$ $demo_command"
    inside "$demo_command" || die "failed: $demo_command"
    # shellcheck disable=SC2016 # expanded in there
    inside 'printf "fresh-versions: %s, liburing %s, gcc %s\n" "$(uname -r)" "$(pkg-config --modversion liburing)" \
        "$(gcc -dumpfullversion)"'
}

# "io_uring   123 456 …" of the demo's table as words: requests a second, and those per second of CPU.
table_row() { sed -n "s/^$1 \{1,\}\([0-9]\{1,\}\) \{1,\}\([0-9]\{1,\}\) .*/\1 \2/p" "$log" | tail -n 1; }

# The demo has to have chosen io_uring, and to have measured it.
check_output() {
    local row epoll versions
    grep -q '^examples/echo chose io_uring: ' "$log" ||
        die "not io_uring: $(sed -n 's/^examples\/echo chose //p' "$log" | sed -n 1p)"
    row=$(table_row io_uring)
    epoll=$(table_row epoll)
    [ -n "$row" ] || die "the table has no figures of io_uring"
    [ -n "$epoll" ] || die "the table has no figures of epoll"
    versions=$(sed -n 's/^fresh-versions: //p' "$log" | tail -n 1)
    echo "fresh: $release, Linux $versions, backend io_uring: ${row% *} requests/s, ${row#* } per CPU-second" \
        "(epoll ${epoll% *}, ${epoll#* })"
}

make_command=$(readme_make)
demo_command=$(readme_demo)
[ -n "$make_command" ] || die "README.md: no command that installs make under 'Two commands'"
case $demo_command in "make demo"*) ;; *) die "README.md: 'Two commands' does not begin with make demo" ;; esac

if [ "${GYRE_FRESH_INSIDE:-}" = "$release" ]; then
    run_inside
    exit 0
fi
[ "$(uname -s) $(id -u)" = "Linux 0" ] || cannot "takes root on Linux"
command -v debootstrap >/dev/null || cannot "no debootstrap; install it (apt-get install debootstrap)"
unshare --mount --pid --fork true 2>/dev/null || cannot "no namespaces for mounts and processes here"
mkdir -p "$keep/root" "$keep/packages-$release/partial"
exec 9>"$keep/lock"
flock 9
# Not exec: what the commands print is also kept.
set +e
GYRE_FRESH_INSIDE=$release unshare --mount --propagation private --pid --fork --kill-child \
    bash scripts/fresh.sh "$release" 9>&- 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
set -e
[ "$status" != 77 ] || exit 77
[ "$status" = 0 ] || die "failed; all it said is in $log"
check_output
