#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs all benchmarks, part by part, and writes RESULTS.md: about twelve minutes.

Each part is kept in bench/results/full as soon as it is measured. After an interruption `--missing` goes on with the
parts that are not there yet; RESULTS.md is written from whatever there is.
"""
import argparse
import os
import subprocess
import sys
import time

import cells
import harness
import run

HERE = os.path.dirname(os.path.abspath(__file__))


def measure_part(name, path, args):
    command = [sys.executable, os.path.join(HERE, "run.py"), "--build", args.build, "--part", name, "--rounds",
               str(args.rounds), "--slice-ms", str(args.slice_ms), "--output", path]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        return process.wait()
    except BaseException:
        process.terminate()  # it ends what it started
        process.wait()
        raise


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release", help="build directory (build/release)")
    parser.add_argument("--rounds", type=harness.in_range(1, 1000), default=9, help="1 to 1000 (9)")
    parser.add_argument("--slice-ms", type=harness.in_range(10, 60000), default=200, help="10 to 60000 (200)")
    parser.add_argument("--missing", action="store_true", help="only the parts that are not measured yet")
    parser.add_argument("--results", default=os.path.join(run.RESULTS, "full"), help="directory for the parts")
    parser.add_argument("--output", default=os.path.join(HERE, "RESULTS.md"), help="(bench/RESULTS.md)")
    args = parser.parse_args()
    harness.raise_on_signals()
    os.makedirs(args.results, exist_ok=True)
    failed, paths = [], []
    for name in cells.PARTS:
        path = os.path.join(args.results, f"{name}.json")
        if args.missing and os.path.exists(path):
            paths.append(path)
            continue
        began = time.time()
        if measure_part(name, path, args) != 0:
            failed.append(name)
        if os.path.exists(path) and os.path.getmtime(path) >= began - 1:
            paths.append(path)
        print(f"{name}: {time.time() - began:.0f} s", flush=True)
    if not paths:
        sys.exit("full.py: nothing was measured")
    subprocess.run([sys.executable, os.path.join(HERE, "results.py"), "--output", args.output, *paths], check=True)
    if failed:
        sys.exit(f"full.py: something went wrong in {', '.join(failed)}; {os.path.relpath(args.output)} tells what")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        os.write(2, b"\ninterrupted; --missing goes on with the parts that are left\n")
        sys.exit(130)
