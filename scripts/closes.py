#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Finds descriptors that a program closed and did not open, or put others over, in what strace printed of it.

usage: strace -f -e trace=%desc,%network,io_uring_setup -o FILE PROGRAM…; closes.py FILE

Prints each of them and exits with 1, or says how many closes there were. Descriptors 0 to 2, and any others that the
program was started with, are not its own.
"""

import re
import sys

OPENING = {"open", "openat", "openat2", "creat", "socket", "accept", "accept4", "eventfd", "eventfd2", "epoll_create",
           "epoll_create1", "io_uring_setup", "dup", "dup2", "dup3", "timerfd_create", "memfd_create", "signalfd",
           "signalfd4", "inotify_init1", "pidfd_open"}
PAIRS = {"socketpair", "pipe", "pipe2"}
CALL = re.compile(r"(\w+)\((.*)\)\s+=\s+(-?\d+)")


def calls(text):
    """The (name, arguments, result) of each call, in the order of their ends; those cut in two are joined."""
    begun = {}
    for line in text.splitlines():
        process, _, rest = line.partition(" ")
        rest = rest.strip()
        if rest.endswith("<unfinished ...>"):
            begun[process] = rest.removesuffix("<unfinished ...>")
            continue
        resumed = re.match(r"<\.\.\. \w+ resumed>(.*)", rest)
        if resumed:
            rest = begun.pop(process, "") + resumed.group(1)
        match = CALL.match(rest)
        if match:
            yield match.group(1), match.group(2), int(match.group(3))


def strangers(text):
    """What was closed and not opened, in words, and how many closes succeeded."""
    own, found, closes = set(), [], 0
    for name, arguments, result in calls(text):
        if name == "close":
            fd = int(re.match(r"-?\d+", arguments).group(0))
            closes += result == 0
            if fd not in own:
                found.append(f"close({fd}) = {result}: it did not open that")
            own.discard(fd)
        elif result < 0:
            continue
        elif name == "close_range":
            found.append(f"close_range({arguments})")
        elif name in ("dup2", "dup3") and result not in own and result < 3:
            found.append(f"{name}({arguments}): over one that it did not open")
        elif name in OPENING or name == "fcntl" and "F_DUPFD" in arguments:
            own.add(result)
        elif name in PAIRS:
            own.update(int(fd) for fd in re.search(r"\[(\d+), (\d+)\]", arguments).groups())
    return found, closes


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8", errors="replace") as file:
        found, closes = strangers(file.read())
    for line in found:
        print(line)
    if not found:
        print(closes)
    return 1 if found or closes == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
