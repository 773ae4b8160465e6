#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares echo servers: gyre on io_uring and on epoll, and the raw loops. README.md says how to read the result.

All servers run at once on one processor, the load on another. All connections are open all the time. Each server gets
a short slice of load in turn, in rotated order, for several rounds; a ratio is taken within each round, and the median
of the rounds is told with the quartiles. What disturbs the machine disturbs both sides of a ratio.
"""
import argparse
import json
import os
import re
import resource
import shlex
import statistics
import sys
import time

import harness
import idle_memory
import servers

CELLS = "64@1,64@64,64@1000,64x16@1,64x16@64,64x16@1000,16384@1,16384@64,16384@1000"
RESULTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results")


class Cell:
    """Work and connections, written SIZE[xPIPELINE]@CONNECTIONS."""

    def __init__(self, text):
        match = re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?@(\d{1,9})", text)
        if not match:
            raise ValueError(f"a cell is SIZE@CONNECTIONS or SIZExPIPELINE@CONNECTIONS, not {text!r}")
        self.size, self.pipeline, self.connections = (int(part or 1) for part in match.groups())
        for name, value, most in (("size", self.size, 16777216), ("pipeline", self.pipeline, 65536),
                                  ("connections", self.connections, 65536)):
            if not 1 <= value <= most:
                raise ValueError(f"the {name} of cell {text!r} must be from 1 to {most}")

    def __str__(self):
        size = f"{self.size // 1024} KiB" if self.size % 1024 == 0 else f"{self.size} B"
        work = f"{size} x{self.pipeline}" if self.pipeline > 1 else size
        return f"{work} @ {self.connections}"


def median_and_quartiles(values):
    """(median, lower quartile, upper quartile)"""
    if len(values) == 1:
        return values[0], values[0], values[0]
    quartiles = statistics.quantiles(values, n=4, method="inclusive")
    return quartiles[1], quartiles[0], quartiles[2]


class Run:
    """One cell being measured: running servers, rounds so far, servers that fell out."""

    def __init__(self, cell, missing, progress):
        self.cell = cell
        self.progress = progress
        self.running = {}
        self.index = {}
        self.rounds = {}  # name -> slices, one per round
        self.requests = {}  # name -> answered in all, warm-up included
        self.calls = {}  # name -> system calls per request
        self.dropped = {name: (reason, False) for name, reason in missing.items()}  # (reason, was it being measured)
        self.load = None

    def drop(self, name, err):
        self.dropped[name] = (str(err), isinstance(err, harness.Failed))
        self.rounds.pop(name, None)
        server = self.running.pop(name, None)
        if server:
            server.stop()
        self.progress(f"{self.cell}: {name} dropped: {err}", last=True)

    def start(self, commands, load_program, server_cpu, load_cpu):
        for name, command in commands.items():
            if name in self.dropped:
                continue
            try:
                self.running[name] = servers.start(name, command, server_cpu)
                self.rounds[name], self.requests[name] = [], 0
            except harness.Unavailable as err:
                self.drop(name, err)
        names = list(self.running)
        if not names:
            return
        self.index = {name: i for i, name in enumerate(names)}
        self.load = harness.Load(load_program, [self.running[name].address for name in names], load_cpu,
                                 self.cell.connections, self.cell.size, self.cell.pipeline)
        for i, name in enumerate(names):
            try:
                with harness.blaming(self.running[name]):
                    self.load.require_ready(i)
            except harness.Failed as err:
                self.drop(name, err)

    def slice(self, name, milliseconds, keep):
        try:
            answer = harness.measured_slice(self.running[name], self.load, self.index[name], milliseconds)
        except harness.Failed as err:
            if self.load.process.poll() is not None:
                raise
            self.drop(name, err)
            return
        self.requests[name] += answer["requests_total"]
        if keep:
            self.rounds[name].append(answer)

    def measure(self, rounds, milliseconds):
        for number in range(rounds + 1):  # the first one warms up and is thrown away
            self.progress(f"{self.cell}: round {number}/{rounds}")
            names = list(self.running)
            turn = number % len(names) if names else 0
            for name in names[turn:] + names[:turn]:
                self.slice(name, milliseconds, keep=number > 0)

    def stop(self):
        if self.load:
            self.load.stop()
        for name, server in self.running.items():
            stats = server.stop()
            self.calls[name] = harness.calls_per_request(stats, self.requests[name])
        self.running = {}

    def result(self, pairs):
        return {
            "cell": str(self.cell),
            "size": self.cell.size,
            "pipeline": self.cell.pipeline,
            "connections": self.cell.connections,
            "servers": {name: self._server(name, slices) for name, slices in self.rounds.items() if slices},
            "ratios": [self._ratio(a, b) for a, b in pairs if self.rounds.get(a) and self.rounds.get(b)],
            "dropped": {name: reason for name, (reason, _) in self.dropped.items()},
        }

    def _server(self, name, slices):
        def median(value):
            return statistics.median(value(s) for s in slices)

        return {
            "requests_per_second": median(lambda s: s["requests_per_second"]),
            "requests_per_cpu_second": median(per_cpu_second),
            "p50_ns": median(lambda s: s["latency_ns"]["p50"]),
            "p99_ns": median(lambda s: s["latency_ns"]["p99"]),
            "calls_per_request": self.calls.get(name),
            "slices": slices,
        }

    def _ratio(self, a, b):
        both = list(zip(self.rounds[a], self.rounds[b]))
        cpu = [per_cpu_second(x) / per_cpu_second(y) for x, y in both]
        rate = [x["requests_per_second"] / y["requests_per_second"] for x, y in both if y["requests_per_second"] > 0]
        return {"of": a, "to": b, "per_cpu_second": median_and_quartiles(cpu),
                "per_second": median_and_quartiles(rate or [0.0])}


def per_cpu_second(measured):
    return measured["requests_total"] * 1e9 / measured["cpu_ns"]


def server_table(results):
    lines = [f"{'work @ connections':<20}{'server':<16}{'requests/s':>12}{'per CPU-s':>12}{'p50 us':>10}{'p99 us':>10}"
             f"{'calls/request':>15}"]
    for result in results:
        label = result["cell"]
        for name, s in result["servers"].items():
            calls = "-" if s["calls_per_request"] is None else f"{s['calls_per_request']:.3f}"
            lines.append(f"{label:<20}{name:<16}{s['requests_per_second']:>12.0f}{s['requests_per_cpu_second']:>12.0f}"
                         f"{s['p50_ns'] / 1000:>10.0f}{s['p99_ns'] / 1000:>10.0f}{calls:>15}")
            label = ""
    return lines


def short(name):
    return name.replace("io_uring", "uring")


def ratio_table(results, pairs, key):
    pairs = [pair for pair in pairs if any((r["of"], r["to"]) == pair for result in results for r in result["ratios"])]
    columns = [f"{short(a)}/{short(b)}" for a, b in pairs]
    widths = [max(len(column), len("1.00 (1.00-1.00)")) + 2 for column in columns]
    lines = [f"{'work @ connections':<20}" + "".join(f"{c:>{w}}" for c, w in zip(columns, widths))]
    for result in results:
        found = {(r["of"], r["to"]): r[key] for r in result["ratios"]}
        cells = ["{:.2f} ({:.2f}-{:.2f})".format(*found[pair]) if pair in found else "-" for pair in pairs]
        lines.append(f"{result['cell']:<20}" + "".join(f"{c:>{w}}" for c, w in zip(cells, widths)))
    return lines


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
    parser.add_argument("--cells", default=CELLS, help=f"SIZE[xPIPELINE]@CONNECTIONS, with commas between ({CELLS})")
    parser.add_argument("--rounds", type=harness.in_range(1, 1000), default=9, help="1 to 1000 (9)")
    parser.add_argument("--slice-ms", type=harness.in_range(10, 60000), default=200, help="10 to 60000 (200)")
    parser.add_argument("--servers", help="names of the servers to compare, with commas between (all)")
    parser.add_argument("--server", action="append", default=[], metavar="NAME=COMMAND",
                        help="one more server; its first line must name its tcp:// or unix:// address")
    parser.add_argument("--no-memory", action="store_true", help="leave out the memory per idle connection")
    parser.add_argument("--output", help="file for the result as JSON (bench/results/TIME.json)")
    args = parser.parse_args()
    args.pairs = list(servers.RATIOS)
    args.commands = servers.table(args.build)
    for text in args.server:
        name, equals, command = text.partition("=")
        if not name or not equals or not command.strip():
            parser.error(f"--server must be NAME=COMMAND, not {text!r}")
        args.commands[name] = shlex.split(command)
        args.pairs.append(("gyre-io_uring", name))
    if args.servers is not None:
        unknown = [name for name in args.servers.split(",") if name not in args.commands]
        if unknown:
            parser.error(f"--servers: there is no {unknown[0]!r}; there are {', '.join(args.commands)}")
        args.commands = {name: args.commands[name] for name in args.servers.split(",")}
    try:
        args.cells = [Cell(text) for text in args.cells.split(",")]
    except ValueError as err:
        parser.error(f"--cells: {err}")
    most = max(cell.connections for cell in args.cells) * len(args.commands) + 64
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most > limit:
        parser.error(f"--cells: {most} descriptors are needed, and a process may have {limit}")
    return args


def measure_cells(args, load_program, progress):
    """Returns (results, names of servers that failed while they were measured)."""
    server_cpu, load_cpu = harness.processors()
    results, failed, missing = [], {}, {}
    for number, cell in enumerate(args.cells):
        place = f"[{number + 1}/{len(args.cells)}]"
        run = Run(cell, missing, lambda text, last=False, place=place: progress(f"{place} {text}", last))
        try:
            run.start(args.commands, load_program, server_cpu, load_cpu)
            run.measure(args.rounds, args.slice_ms)
        finally:
            run.stop()
        results.append(run.result(args.pairs))
        progress(f"{place} {cell}: done", last=True)
        for name, (reason, was_measured) in run.dropped.items():
            (failed if was_measured else missing)[name] = reason
    return results, failed


def measure_memory(args, load_program, progress):
    connections = idle_memory.connections_possible(idle_memory.CONNECTIONS)
    figures = idle_memory.measure_all(args.commands, load_program, connections, lambda name, reason: progress(
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
    print("\n".join(server_table(results)))
    print("\nRatios of requests per second of server CPU: median (quartiles) of the rounds")
    print("\n".join(ratio_table(results, args.pairs, "per_cpu_second")))
    print("\nRatios of requests per second")
    print("\n".join(ratio_table(results, args.pairs, "per_second")))
    if report["idle_memory"]:
        connections = next(iter(report["idle_memory"].values()))["connections"]
        print(f"\nResident memory, {connections} connections after one exchange of 1 KiB each")
        print("\n".join(idle_memory.table(report["idle_memory"])))
    dropped = {(name, reason) for result in results for name, reason in result["dropped"].items()}
    for name, reason in sorted(dropped):
        print(f"\n{name} was dropped: {reason}")


def save(report, path):
    if path is None:
        os.makedirs(RESULTS, exist_ok=True)
        path = os.path.relpath(os.path.join(RESULTS, time.strftime("%Y%m%d-%H%M%S.json")))
    with open(path, "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
    print(f"\nEvery slice is in {path}")


def main():
    args = parse_arguments()
    harness.raise_on_signals()
    progress = make_progress()
    server_cpu, load_cpu = harness.processors()
    environment = harness.environment()
    try:
        load_program = harness.program(args.build, "bench", "gyre-load")
        results, failed = measure_cells(args, load_program, progress)
        memory = {} if args.no_memory else measure_memory(args, load_program, progress)
    except (harness.Unavailable, harness.Failed) as err:
        sys.exit(f"run.py: {err}")
    report = {"environment": environment, "rounds": args.rounds, "slice_ms": args.slice_ms,
              "server_cpu": server_cpu, "load_cpu": load_cpu, "cells": results, "idle_memory": memory}
    print_result(args, report)
    save(report, args.output)
    measured = any(result["servers"] for result in results)
    return 1 if failed or not measured else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        os.write(2, b"\ninterrupted\n")
        sys.exit(130)
