#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares servers: gyre on io_uring and on epoll, the raw loops, and other libraries' echo servers and relays.
README.md says how to read the result.

All servers run at once on one processor, the load on another. All connections are open all the time. Each server gets
a short slice of load in turn, in rotated order, for several rounds; a ratio is taken within each round, and the median
of the rounds is told with the quartiles. What disturbs the machine disturbs both sides of a ratio.
"""
import argparse
import json
import os
import resource
import shlex
import sys
import time

import cells
import charts
import environment
import harness
import idle_memory
import measure
import servers
import tables

RESULTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results")


def make_progress():
    """Overwrites one line on a terminal; elsewhere prints only what must stay."""
    terminal = sys.stderr.isatty()

    def progress(text, last=False):
        if terminal:
            sys.stderr.write("\r\033[K" + text + ("\n" if last else ""))
        elif last:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()

    return progress


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release", help="build directory (build/release)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--part", choices=cells.PARTS,
                       help="a part of the whole instead of the short set; results.py puts the parts together")
    which.add_argument("--cells", help="other cells: [KIND:]SIZE[xPIPELINE]@CONNECTIONS, with commas between; the kind "
                       f"is one of {', '.join(cells.KINDS)}")
    parser.add_argument("--rounds", type=harness.in_range(1, 1000), default=9, help="1 to 1000 (9)")
    parser.add_argument("--slice-ms", type=harness.in_range(10, 60000), default=200, help="10 to 60000 (200)")
    parser.add_argument("--servers", help="names of the servers to compare, with commas between (all)")
    parser.add_argument("--server", action="append", default=[], metavar="NAME=COMMAND",
                        help="one more server; its first line must name its tcp://, unix:// or udp:// address")
    parser.add_argument("--no-memory", action="store_true", help="leave out the memory per idle connection")
    parser.add_argument("--output", help="file for the result as JSON (bench/results/TIME.json, or "
                        "PART.json in bench/results/full)")
    args = parser.parse_args()
    args.pairs = list(servers.RATIOS)
    args.commands = servers.echo_commands(args.build)
    args.extra = []
    for text in args.server:
        name, equals, command = text.partition("=")
        if not name or not equals or not command.strip():
            parser.error(f"--server must be NAME=COMMAND, not {text!r}")
        args.commands[name] = shlex.split(command)
        args.extra.append(name)
        args.pairs.append(("gyre-io_uring", name))
    known = [*args.commands, *servers.PACKAGED]
    args.servers = known if args.servers is None else args.servers.split(",")
    unknown = [name for name in args.servers if name not in known]
    if unknown:
        parser.error(f"--servers: there is no {unknown[0]!r}; there are {', '.join(known)}")
    try:
        args.explicit = args.cells is not None
        chosen = cells.PARTS[args.part] if args.part else cells.SHORT
        args.cells = [] if args.part == "memory" else cells.parse(args.cells if args.explicit else chosen)
    except ValueError as err:
        parser.error(f"--cells: {err}")
    args.no_memory = args.no_memory or args.part not in (None, "memory")
    check_descriptors(parser, args)
    return args


def names_for(args, cell):
    """The servers of a cell, in the order they are told."""
    extra = args.extra if cell.kind in ("echo", "peers", "churn", "udp") else []
    return [name for name in (*servers.BY_KIND[cell.kind], *extra) if name in args.servers]


def check_descriptors(parser, args):
    """Refuses cells that were asked for and need too many; those of a set are left out, with a message."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    fitting = []
    for cell in args.cells:
        if cell.descriptors <= limit:
            fitting.append(cell)
            continue
        message = f"{cell} needs {cell.descriptors} descriptors, and a process may have {limit}"
        if args.explicit:
            parser.error(f"--cells: {message}")
        print(f"left out: {message}", file=sys.stderr)
    args.cells = fitting


def relay_backends(args, cell, run, load_cpu):
    """Name of a relay -> address of the echo server behind it, one for each, for those where it started."""
    found = {}
    for name in names_for(args, cell):
        try:
            found[name] = run.start_backend(name, args.commands["raw-epoll"], load_cpu)
        except harness.Unavailable as err:
            run.drop(name, f"the backend of the relays: {err}")
    return found


def starters_for(args, cell, run, load_cpu):
    if cell.kind == "relay":
        return servers.relay_starters(args.build, relay_backends(args, cell, run, load_cpu), cell.connections)
    udp = servers.udp_commands(args.build) if cell.kind == "udp" else {}
    found = servers.starters({**args.commands, **udp})
    return {name: found[name] for name in names_for(args, cell)}


def measure_cells(args, load_program, progress):
    """Returns (results, names of servers that failed while they were measured)."""
    server_cpu, load_cpu = harness.processors()
    results, failed, missing = [], {}, {}  # (kind of programs, name of a server) -> reason
    for number, cell in enumerate(args.cells):
        place = f"[{number + 1}/{len(args.cells)}]"
        known = {name: reason for (group, name), reason in missing.items()
                 if group == cell.group and name in names_for(args, cell)}
        run = measure.Run(cell, known, lambda text, last=False, place=place: progress(f"{place} {text}", last))
        try:
            run.start(starters_for(args, cell, run, load_cpu), load_program, server_cpu, load_cpu)
            run.measure(args.rounds, args.slice_ms)
        finally:
            run.stop()
        results.append(run.result(args.pairs))
        progress(f"{place} {cell}: done", last=True)
        for name, (reason, was_measured) in run.dropped.items():
            (failed if was_measured else missing)[cell.group, name] = reason
    return results, failed


def names_are_there(command):
    """False for what is not built: the cells have said so."""
    return os.sep not in command[0] or os.access(command[0], os.X_OK)


def measure_memory(args, load_program, progress):
    connections = idle_memory.connections_possible(idle_memory.CONNECTIONS)
    commands = {name: command for name, command in args.commands.items()
                if name in args.servers and name not in servers.TWO + servers.FEW and names_are_there(command)}
    figures = idle_memory.measure_all(commands, load_program, connections, lambda name, reason: progress(
        f"idle memory: {name} dropped: {reason}", last=True))
    progress("idle memory: done", last=True)
    return figures


def print_result(args, report):
    env = report["environment"]
    results = report["cells"]
    print(f"\nLinux {env['kernel']}, {env['processor']}, {env['processors']} processors, revision {env['revision']}")
    print(f"{args.rounds} rounds of {args.slice_ms} ms slices; servers on processor {report['server_cpu']}, load on "
          f"{report['load_cpu']}; every byte checked")
    if report["server_cpu"] == report["load_cpu"]:
        print("Only one processor: servers and load share it, and requests/s mean little.")
    if env["load_average"] > 0.5:
        print(f"The machine was busy before the run (load average {env['load_average']:.1f}): expect wide spreads.")
    print("\nMedians over the rounds")
    print("\n".join(tables.server_table(results)))
    print("\nRatios of requests per second of server CPU: median (quartiles) of the rounds")
    print("\n".join(tables.ratio_tables(results, args.pairs, "per_cpu_second")))
    print("\nRatios of requests per second")
    print("\n".join(tables.ratio_tables(results, args.pairs, "per_second")))
    if report["idle_memory"]:
        connections = next(iter(report["idle_memory"].values()))["connections"]
        print(f"\nResident memory, {connections} connections {idle_memory.QUIET_S} s after one exchange of 1 KiB each")
        print("\n".join(idle_memory.table(report["idle_memory"])))
    dropped = {(name, reason) for result in results for name, reason in result["dropped"].items()}
    for name, reason in sorted(dropped):
        print(f"\n{name} was dropped: {reason}")


def save(report, path, part):
    if path is None:
        name = f"full/{part}.json" if part else time.strftime("%Y%m%d-%H%M%S.json")
        path = os.path.relpath(os.path.join(RESULTS, name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
    os.replace(file.name, path)
    print(f"\nEvery slice is in {path}")
    for chart in charts.write(report, path):
        print(f"A chart is in {chart}")


def main():
    args = parse_arguments()
    harness.raise_on_signals()
    progress = make_progress()
    server_cpu, load_cpu = harness.processors()
    where = environment.environment()
    try:
        load_program = harness.program(args.build, "bench", "gyre-load")
        results, failed = measure_cells(args, load_program, progress)
        memory = {} if args.no_memory else measure_memory(args, load_program, progress)
    except (harness.Unavailable, harness.Failed) as err:
        sys.exit(f"run.py: {err}")
    report = {"environment": where, "part": args.part, "rounds": args.rounds, "slice_ms": args.slice_ms,
              "server_cpu": server_cpu, "load_cpu": load_cpu, "cells": results, "idle_memory": memory}
    print_result(args, report)
    save(report, args.output, args.part)
    measured = memory or any(result["servers"] for result in results)
    return 1 if failed or not measured else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        os.write(2, b"\ninterrupted\n")
        sys.exit(130)
