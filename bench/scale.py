#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a connection and a timer cost, at growing numbers of them. SCALE.md says what to make of it.

Connections: for each number a fresh server on one processor, whose load on the other opens them and exchanges 1 KiB on
each. Both ends' sockets are in the kernel's memory (`slab`), and only the server's process in `resident` and `accept`,
which is its processor time for accepting and for the exchange. Timers, and connections of the simulator: gyre-scale.
"""
import argparse
import json
import os
import subprocess
import sys

import harness
import idle_memory
import servers

EXCHANGE_BYTES = 1024


def numbers(least, most):
    """An argument: numbers with commas between."""
    def parse(text):
        return [harness.in_range(least, most)(part) for part in text.split(",")]
    return parse


def slab_bytes():
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("Slab:"):
                return int(line.split()[1]) * 1024
    raise harness.Failed("/proc/meminfo has no Slab line")


def measure_connections(name, command, load_program, count):
    """Returns a row. Raises Unavailable or Failed."""
    server_cpu, load_cpu = harness.processors()
    server = harness.Server(name, command, server_cpu)
    load = None
    try:
        resident, slab, cpu = server.resident_bytes(), slab_bytes(), server.cpu_ns()
        load = harness.Load(load_program, [server.address], load_cpu, count, EXCHANGE_BYTES)
        load.require_ready(0)
        load.once(0)
        server.check()
        return {
            "server": name,
            "connections": count,
            "resident": (server.resident_bytes() - resident) / count,
            "slab": (slab_bytes() - slab) / count,
            "accept_us": (server.cpu_ns() - cpu) / count / 1000,
        }
    finally:
        if load:
            load.stop()
        server.stop()


def run_program(build, kind, count):
    program = harness.program(build, "bench", "gyre-scale")
    done = subprocess.run([program, kind, str(count)], capture_output=True, text=True)
    if done.returncode != 0:
        raise harness.Failed(done.stderr.strip() or f"gyre-scale ended with status {done.returncode}")
    return json.loads(done.stdout)


def table(rows):
    """A table as Markdown."""
    heads = list(rows[0])
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in rows:
        cells = [f"{row[head]:.0f}" if isinstance(row[head], float) and row[head] >= 100 else
                 f"{row[head]:.1f}" if isinstance(row[head], float) else str(row[head]) for head in heads]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release", help="build directory (build/release)")
    parser.add_argument("--counts", type=numbers(1, 65000), default=[1000, 2000, 4000, 8000, 16000],
                        help="of connections, each 1 to 65000 (1000,2000,4000,8000,16000)")
    parser.add_argument("--timers", type=numbers(1, 1000000), default=[1000, 2000, 4000, 8000, 16000, 100000, 1000000],
                        help="each 1 to 1000000")
    parser.add_argument("--simulated", type=numbers(1, 500000), default=[1000, 10000, 100000, 500000],
                        help="connections on the simulator, each 1 to 500000")
    args = parser.parse_args()
    harness.raise_on_signals()
    dropped = 0
    try:
        load_program = harness.program(args.build, "bench", "gyre-load")
        print(table([run_program(args.build, "timers", count) for count in args.timers]) + "\n")
        print(table([run_program(args.build, "connections", count) for count in args.simulated]) + "\n")
    except (harness.Unavailable, harness.Failed) as err:
        sys.exit(f"scale.py: {err}")
    rows = []
    for name, command in servers.table(args.build).items():
        for count in args.counts:
            if idle_memory.connections_possible(count) < count // 2 * 2:
                print(f"{name}: {count} connections need more descriptors than there are", file=sys.stderr)
                dropped += 1
                continue
            try:
                rows.append(measure_connections(name, command, load_program, count))
            except (harness.Unavailable, harness.Failed) as err:
                print(f"{name} with {count}: {err}", file=sys.stderr)
                dropped += 1
    if rows:
        print(table(rows))
    return 1 if dropped else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        os.write(2, b"\ninterrupted\n")
        sys.exit(130)
