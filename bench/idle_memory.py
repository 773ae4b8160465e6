#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Resident memory of a server per idle connection.

After a warm-up over 64 connections, half of the connections are made and exchange 1 KiB each, then the other half. All
stay open. Each time the server is left alone for two seconds and then looked at: the memory of a burst may go back.
Two figures come out: the growth of the whole process divided by all connections, which has fixed costs in it
(buffers used for the first time, tables), and the growth during the second half divided by half of them, which has
less of that. The kernel's memory for its sockets is in neither.
"""
import argparse
import os
import resource
import sys
import time

import harness
import servers

CONNECTIONS = 8000
EXCHANGE_BYTES = 1024
QUIET_S = 2


def measure(server, load_program, connections=CONNECTIONS):
    """Returns the figures of a server that was just started. Raises Failed."""
    load_cpu = harness.processors()[1]
    half = connections // 2
    loads = []

    def exchange(count):
        load = harness.Load(load_program, [server.address], load_cpu, count, EXCHANGE_BYTES)
        loads.append(load)
        with harness.blaming(server):
            load.require_ready(0)
            load.once(0)
        time.sleep(QUIET_S)
        server.check()
        return server.resident_bytes()

    try:
        exchange(64)
        loads.pop().stop()
        before = server.resident_bytes()
        middle = exchange(half)
        after = exchange(half)
    finally:
        for load in loads:
            load.stop()
    return {
        "connections": 2 * half,
        "before_bytes": before,
        "after_bytes": after,
        "per_connection": (after - before) / (2 * half),
        "per_connection_second_half": (after - middle) / half,
    }


def measure_all(commands, load_program, connections, drop):
    """Figures by name of server; `drop(name, reason)` hears of those that could not be measured."""
    figures = {}
    for name, command in commands.items():
        server = None
        try:
            server = servers.start(name, command, harness.processors()[0])
            figures[name] = measure(server, load_program, connections)
        except (harness.Unavailable, harness.Failed) as err:
            drop(name, err)
        finally:
            if server:
                server.stop()
    return figures


def table(figures):
    """Lines for `figures`, a dictionary of what measure() returned by name of server."""
    lines = [f"{'server':<18}{'before KiB':>12}{'after KiB':>12}{'bytes/connection':>18}{'second half':>13}"]
    for name, f in figures.items():
        lines.append(f"{name:<18}{f['before_bytes'] / 1024:>12.0f}{f['after_bytes'] / 1024:>12.0f}"
                     f"{f['per_connection']:>18.0f}{f['per_connection_second_half']:>13.0f}")
    return lines


def connections_possible(wanted):
    """At most what the limit on descriptors leaves, an even number."""
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 100
    return min(wanted, room) // 2 * 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release", help="build directory (build/release)")
    parser.add_argument("--connections", type=harness.in_range(2, 100000), default=CONNECTIONS,
                        help=f"2 to 100000 ({CONNECTIONS})")
    args = parser.parse_args()
    harness.raise_on_signals()
    connections = connections_possible(args.connections)
    dropped = []

    def drop(name, reason):
        dropped.append(name)
        print(f"{name}: {reason}", file=sys.stderr)

    try:
        load_program = harness.program(args.build, "bench", "gyre-load")
    except harness.Unavailable as err:
        sys.exit(f"idle_memory.py: {err}")
    figures = measure_all(servers.table(args.build), load_program, connections, drop)
    print(f"resident memory, {connections} connections {QUIET_S} s after one exchange of {EXCHANGE_BYTES} bytes each")
    print("\n".join(table(figures)))
    return 1 if dropped else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        os.write(2, b"\ninterrupted\n")
        sys.exit(130)
