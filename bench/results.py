#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes RESULTS.md, and the charts it shows, from what `run.py --part` has measured.

Without arguments it takes bench/results/full/*.json. Parts may be missing, or come from different runs: it says so.
"""
import argparse
import glob
import json
import os
import sys

import cells as work
import charts
import idle_memory
import measure
import servers
import targets

HERE = os.path.dirname(os.path.abspath(__file__))

INTRODUCTION = """\
# Results

Made by `make bench-full` ([how](README.md)); do not edit. All figures of a row were taken in one run, in turns of
{slice_ms} ms, so a ratio compares two servers within a second or two of each other on the same machine. **Ratios are
medians of {rounds} rounds, the quartiles in brackets: half of the rounds lie between them.**
"""

READING = """\
## What may be concluded

- **A ratio of requests per second of server CPU** says how much work a server gets out of a processor, beside another
  server that did the same work under the same load. It is the figure to compare by, and the one the targets are about.
- **Brackets that contain 1.00 are no difference.** Brackets wider than 0.10 were taken on a busy machine; take that
  cell again with more rounds before arguing from it.
- **The raw loops are the limit, not competitors**: they have no time limits, no back-pressure, no graceful close, no
  limits on what a peer may do. A ratio of 0.97 to them is the price of all that.

## What may not

- **Nothing about absolute speed.** Requests per second depend on this machine in that minute; the same cell has
  differed by a factor of two between runs. Never compare them between tables of different runs.
- **Nothing about a network.** Everything runs over loopback, where the kernel does the work of both ends on the
  processors measured here; no card, no interrupts, no losses, no distance.
- **Nothing about who is faster to answer.** The load keeps a fixed number of requests in flight, so p50 and p99 mostly
  restate the throughput. With one connection every server waits for a sleeping processor to wake, and nobody wins.
- **Nothing about programs with work of their own.** An echo does nothing but input and output; a handler that computes
  makes all these servers look alike.
- **Little about more processors.** There are {processors} here, the load takes one of them, and in the cells with two
  reactors the second reactor shares its processor with the load; compare those with the raw loops under the same load.
- Where an echo of 16 KiB and more is concerned, what fits into the processor's cache decides; on other processors other
  cells may win.
- libuv stands twice in the tables: `libuv-queued` as its guide shows it, with a write request and a fresh buffer for
  each answer, and `libuv` with `uv_try_write` and one buffer for all, which is as fast as we could make it and what few
  programs do. {not_here}.
- haproxy and nginx are whole proxies with logging, checks and limits; the relay here only moves bytes.
- **Echoes of 256 KiB say what forwarding costs, not reading.** gyre's echo forwards what it receives without a look, so
  bulk moves within the kernel by splice(2), and the others read and write it. A server that looks at its bytes gets the
  way before that: on epoll 1.2 to 1.6 of the raw loop, with receives of 256 KiB in place of 64 (src/uring/TUNING.md).
"""


def shown(values):
    return "{:.2f} ({:.2f}–{:.2f})".format(*values)


def table(header, rows):
    return ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header),
            *("| " + " | ".join(row) + " |" for row in rows), ""]


def load_parts(paths):
    """The parts in the order of the whole. Raises ValueError for what is none."""
    parts = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
        if not isinstance(report, dict) or not {"environment", "cells", "idle_memory", "rounds"} <= report.keys():
            raise ValueError(f"{path} is not a result of run.py")
        parts.append(report)
    order = list(work.PARTS)
    return sorted(parts, key=lambda part: order.index(part["part"]) if part.get("part") in order else len(order))


def environment_block(parts):
    first = parts[0]["environment"]
    lines = ["## Where", ""]
    rows = [("kernel", f"Linux {first['kernel']}"),
            ("processor", f"{first['processor']}, {first['processors']} of them"),
            ("mitigations", "; ".join(f"{name}: {text}" for name, text in first["mitigations"].items()) or "none told"),
            ("versions", "; ".join(f"{name} {text}" for name, text in first["versions"].items()))]
    lines += table(("", ""), rows)
    lines += table(("part", "taken", "revision", "rounds", "load average before"),
                   [(part.get("part") or "other", part["environment"]["time"], part["environment"]["revision"],
                     str(part["rounds"]), f"{part['environment']['load_average']:.1f}") for part in parts])
    revisions = {part["environment"]["revision"] for part in parts}
    if len(revisions) > 1:
        lines += ["**The parts are of different revisions.**", ""]
    if any("dirty" in revision for revision in revisions):
        lines += ["**A revision marked dirty had changes that were not committed.**", ""]
    missing = [name for name in work.PARTS if name not in {part.get("part") for part in parts}]
    if missing:
        lines += [f"**Not measured: {', '.join(missing)}.**", ""]
    return lines


def targets_block(cells, memory):
    lines = ["## Targets", "", "Requests per second of server CPU, unless something else is named. A target is met "
             "when the median of every cell reaches it.", ""]
    lines += table(("", "target", "reached", ""), targets.judged(cells, memory))
    return lines + ["[MISSES.md](MISSES.md) says of each that is missed where the time goes and what was tried.", "",
                    "That the steady state has no allocation and no lock per request and no system call per timer is "
                    "not measured here.", ""]


def ratio_block(cells, pairs, key):
    pairs = [pair for pair in pairs if any((r["of"], r["to"]) == pair for cell in cells for r in cell["ratios"])]
    rows = []
    for cell in cells:
        found = {(ratio["of"], ratio["to"]): ratio[key] for ratio in cell["ratios"]}
        rows.append((cell["cell"], *(shown(found[pair]) if pair in found else "–" for pair in pairs)))
    header = ("work @ connections", *(f"{targets.short(a)} ÷ {targets.short(b)}" for a, b in pairs))
    return table(header, rows) if pairs else []


def raw_block(cells):
    rows = []
    for cell in cells:
        name_of_cell = cell["cell"]
        for name, server in cell["servers"].items():
            middle, low, high = measure.median_and_quartiles([measure.per_cpu_second(s) for s in server["slices"]])
            calls = server["calls_per_request"]
            rows.append((name_of_cell, name, f"{server['requests_per_second']:.0f}",
                         f"{middle:.0f} ({low:.0f}–{high:.0f})", f"{server['p50_ns'] / 1000:.0f}",
                         f"{server['p99_ns'] / 1000:.0f}", "–" if calls is None else f"{calls:.3f}",
                         *([f"{server['lost']}"] if cell["kind"] == "udp" else [])))
            name_of_cell = ""
    lost = ("lost",) if any(cell["kind"] == "udp" for cell in cells) else ()
    return table(("work @ connections", "server", "requests/s", "per CPU-s", "p50 µs", "p99 µs", "calls/request",
                  *lost), rows)


def folded(title, lines):
    return ["<details>", f"<summary>{title}</summary>", "", *lines, "</details>", ""]


def kind_block(kind, cells, figure):
    cells = [cell for cell in cells if cell["kind"] == kind]
    if not cells:
        return []
    lines = [f"## {charts.TITLES[kind]}", "", *([f"![{charts.TITLES[kind]}]({figure})", ""] if figure else [])]
    for title, key in (("Requests per second of server CPU", "per_cpu_second"), ("Requests per second", "per_second")):
        blocks = []
        # Wide tables are read by nobody: those of the yardsticks and those of the others apart.
        for pairs in (servers.YARDSTICKS, [pair for pair in servers.RATIOS if pair not in servers.YARDSTICKS]):
            blocks += ratio_block(cells, pairs, key)
        title += ", as ratios"
        lines += [f"{title}:", "", *blocks] if key == "per_cpu_second" else folded(title, blocks)
    return lines + folded("Medians: requests, latencies, system calls", raw_block(cells))


def memory_block(memory):
    if not memory:
        return []
    connections = next(iter(memory.values()))["connections"]
    rows = [(name, f"{f['before_bytes'] / 1024:.0f}", f"{f['after_bytes'] / 1024:.0f}", f"{f['per_connection']:.0f}",
             f"{f['per_connection_second_half']:.0f}") for name, f in memory.items()]
    return ["## Memory of idle connections", "", f"{connections} connections {idle_memory.QUIET_S} s after one "
            f"exchange of {idle_memory.EXCHANGE_BYTES} bytes each; resident memory of the process, the kernel's "
            "sockets not in it. \"Second half\" is the growth over the later half of the connections alone.", "",
            *table(("server", "KiB before", "KiB after", "bytes per connection", "second half"), rows)]


def dropped_block(cells):
    reasons = {}  # (server, reason) -> cells
    for cell in cells:
        for name, reason in cell["dropped"].items():
            reasons.setdefault((name, reason), []).append(cell["cell"])
    lines = [f"- {name}, in {len(where)} of {len(cells)} cells, first {where[0]}: {reason}"
             for (name, reason), where in reasons.items()]
    return ["## Not measured", "", *lines, ""] if lines else []


def document(parts, figures):
    cells = [cell for part in parts for cell in part["cells"]]
    memory = {name: figure for part in parts for name, figure in part["idle_memory"].items()}
    rounds = "/".join(str(number) for number in sorted({part["rounds"] for part in parts}))
    slices = "/".join(str(number) for number in sorted({part["slice_ms"] for part in parts}))
    lines = [INTRODUCTION.format(rounds=rounds, slice_ms=slices),
             *targets_block(cells, memory), *environment_block(parts),
             READING.format(processors=parts[0]["environment"]["processors"], not_here=targets.PEERS_NOT_HERE)]
    for kind in work.KINDS:
        lines += kind_block(kind, cells, figures.get(kind))
    return "\n".join([*lines, *memory_block(memory), *dropped_block(cells)])


def write(parts, output):
    merged = {"cells": [cell for part in parts for cell in part["cells"]], "environment": parts[0]["environment"]}
    folder = os.path.join(os.path.dirname(os.path.abspath(output)), "figures")
    os.makedirs(folder, exist_ok=True)
    drawn = charts.write(merged, os.path.join(folder, "results.json"))
    names = [os.path.basename(path) for path in drawn]
    figures = {name.removeprefix("results-").removesuffix(".svg"): f"figures/{name}" for name in names}
    with open(output + ".new", "w", encoding="utf-8") as file:
        file.write(document(parts, figures))
    os.replace(file.name, output)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="what run.py --part has written (bench/results/full/*.json)")
    parser.add_argument("--output", default=os.path.join(HERE, "RESULTS.md"), help="(bench/RESULTS.md)")
    args = parser.parse_args()
    paths = args.parts or sorted(glob.glob(os.path.join(HERE, "results", "full", "*.json")))
    if not paths:
        sys.exit("results.py: nothing is measured yet: run `make bench-full`, or run.py --part for one part")
    try:
        write(load_parts(paths), args.output)
    except (OSError, ValueError) as err:
        sys.exit(f"results.py: {err}")
    except (KeyError, TypeError, AttributeError, IndexError) as err:
        sys.exit(f"results.py: these are no results of run.py: {type(err).__name__}: {err}")
    print(f"Written: {os.path.relpath(args.output)}")


if __name__ == "__main__":
    main()
