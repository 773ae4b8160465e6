#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Shows gyre's echo server on this machine: the backend it chooses and why, and what epoll does beside it.

The first server chooses its backend itself; where that is not io_uring, its reason says why, and it is shown alone.
Otherwise a second one is told to use epoll, and both get slices of the same load in turn. Takes about ten seconds.
"""
import argparse
import os
import re
import statistics
import sys

import environment
import harness
import servers

CONNECTIONS = 64
SIZE = 64
ROUNDS = 7


def start(build, backend):
    cpu = harness.processors()[0]
    name = backend or "chosen"
    try:
        command = servers.echo_command(build, backend)
        harness.program(build, "examples", "echo")
        return harness.Server(name, command, cpu)
    except harness.Unavailable as err:
        sys.exit(f"demo.py: the echo server {'on ' + backend if backend else 'on its own choice'}: {err}")


def backend_and_reason(server):
    """From "listening on ADDRESS, backend NAME (REASON)"."""
    found = re.search(r"backend (\w+)(?:\s*[(:]\s*(.*?)\)?)?\s*$", server.line)
    if not found:
        raise harness.Failed(f"its first line does not name its backend: {server.line!r}")
    return found.group(1), found.group(2) or "it gives no reason"


def measure(running, load, slice_ms):
    """Slices in turn; returns a list of slices per server. The first round warms up and does not count."""
    slices = [[] for _ in running]
    total = [0] * len(running)
    for number in range(ROUNDS + 1):
        order = range(len(running)) if number % 2 == 0 else reversed(range(len(running)))
        for i in order:
            answer = harness.measured_slice(running[i], load, i, slice_ms)
            total[i] += answer["requests_total"]
            if number > 0:
                slices[i].append(answer)
    return slices, total


def per_cpu_second(answer):
    return answer["requests_total"] * 1e9 / answer["cpu_ns"]


def row(backend, slices, calls):
    def median(value):
        return statistics.median(value(s) for s in slices)

    return (f"{backend:<10}{median(lambda s: s['requests_per_second']):>12.0f}{median(per_cpu_second):>24.0f}"
            f"{median(lambda s: s['latency_ns']['p50']) / 1000:>10.0f}"
            f"{median(lambda s: s['latency_ns']['p99']) / 1000:>10.0f}"
            f"{'-' if calls is None else format(calls, '.3f'):>24}")


def show(running, backends, slices, calls):
    print(f"\n{'backend':<10}{'requests/s':>12}{'requests per CPU-second':>24}{'p50 us':>10}{'p99 us':>10}"
          f"{'system calls/request':>24}")
    for i in range(len(running)):
        print(row(backends[i], slices[i], calls[i]))
    if len(running) < 2:
        return
    ratios = [per_cpu_second(a) / per_cpu_second(b) for a, b in zip(*slices)]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    print(f"\nPer second of CPU, {backends[0]} answers {median:.2f} times as many requests as {backends[1]}: "
          f"the median of {ROUNDS} rounds,\nhalf of which lie between {low:.2f} and {high:.2f}.")
    print("`make bench` measures more loads, and the bare system calls beside both.")


def demo(args, running):
    load_program = harness.program(args.build, "bench", "gyre-load")
    server_cpu, load_cpu = harness.processors()
    env = environment.environment()
    running.append(start(args.build, None))
    backends, reason = zip(backend_and_reason(running[0]))
    print(f"Linux {env['kernel']}, {env['processor']}")
    print(f"examples/echo chose {backends[0]}: {reason[0]}")
    if backends[0] == "io_uring":
        running.append(start(args.build, "epoll"))
        backends += (backend_and_reason(running[1])[0],)
    print(f"{CONNECTIONS} connections, {SIZE} bytes, {ROUNDS} slices of {args.slice_ms} ms each; server on processor "
          f"{server_cpu}, load on {load_cpu}; every byte checked", flush=True)
    load = harness.Load(load_program, [s.address for s in running], load_cpu, CONNECTIONS, SIZE)
    try:
        for i, server in enumerate(running):
            with harness.blaming(server):
                load.require_ready(i)
        slices, total = measure(running, load, args.slice_ms)
    finally:
        load.stop()
    calls = []
    for server, requests in zip(running, total):
        calls.append(harness.calls_per_request(server.stop(), requests))
        if server.process.returncode != 0:
            raise harness.Failed(f"the echo server on {server.line.split('backend ')[-1]} {server.ended}")
    show(running, backends, slices, calls)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release", help="build directory (build/release)")
    parser.add_argument("--slice-ms", type=harness.in_range(10, 2000), default=500, help="10 to 2000 (500)")
    args = parser.parse_args()
    harness.raise_on_signals()
    running = []
    try:
        demo(args, running)
    except (harness.Unavailable, harness.Failed) as err:
        sys.exit(f"demo.py: {err}")
    finally:
        for server in running:
            server.stop()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        os.write(2, b"\ninterrupted\n")
        sys.exit(130)
