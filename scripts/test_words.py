#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The contract and the API suite on io_uring, once with each kernel feature left out that GYRE_URING_OFF can name.

One kernel stands in for many: what is left out is what older kernels lack. The words are read from src/uring/ring.h;
three runs more leave out two at a time, and all there are. It is the release build: with sanitizers the suites have run
before, and much of what differs is a matter of time. Tests of other backends are left out where the harness can tell
(GYRE_TEST_ONLY).

With --quick, the contract suite runs with each word but without its long random mixtures, and the API suite only with
all of them at once. Counts as scripts/test.py does, and ends with the same line: `N passed, N failed`.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUITES = ("contract", "api")
JOBS = os.cpu_count() or 2  # tests at once; with more, those of short time limits fail now and then
TIME_LIMIT = 900  # seconds, of one suite
LONG = "uring_direct_full"  # random mixtures, a third of the contract suite's time
PAIRS = ("single_issuer,ring_fd", "multishot_recv,multishot_accept")


def load_driver():
    spec = importlib.util.spec_from_file_location("test_driver", ROOT / "scripts" / "test.py")
    driver = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = driver
    spec.loader.exec_module(driver)
    return driver


def words():
    """The words of GYRE_URING_OFF, from the list that the library is made with."""
    text = (ROOT / "src" / "uring" / "ring.h").read_text(encoding="utf-8")
    return re.findall(r'X\([A-Z_]+, \d+, "([a-z_]+)"\)', text)


def environment(off):
    env = dict(os.environ)
    env["GYRE_URING_OFF"] = off
    env["GYRE_TEST_ONLY"] = "io_uring"
    required = [name for name in env.get("GYRE_TEST_REQUIRE", "").split(",") if name]
    env["GYRE_TEST_REQUIRE"] = ",".join(dict.fromkeys([*required, "io_uring"]))
    return env


def run_suite(driver, directory, suite, off, only):
    """One suite with these features left out. Returns its tally."""
    tally = driver.Tally()
    label = f"without {off}: {suite}"
    reports = directory / "tests" / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    report = reports / f"{suite}-{off.replace(',', '+')[:80]}.xml"
    report.unlink(missing_ok=True)
    command = [str(directory / "tests" / f"test_{suite}"), "--jobs", str(JOBS), "--timeout", "120", f"--xml={report}"]
    if only:
        command += ["--filter", only]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment(off), check=False, timeout=TIME_LIMIT,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        good, output = done.returncode == 0, done.stdout
    except subprocess.TimeoutExpired as over:
        good, output = False, over.stdout or b""
    failed = driver.criterion_report(report, label, tally)
    if only:  # Criterion reports as skipped what the filter left out
        tally.skipped = [name for name in tally.skipped if f"{LONG}::" not in name]
    if failed is None:
        tally.fail(f"{label}: it left no report")
    elif not good and not failed:
        tally.fail(f"{label}: no case failed, but the program did")
    elif tally.passed == 0:
        tally.fail(f"{label}: nothing ran")
    if tally.failed > 0:
        print(output.decode(errors="replace")[-8000:], flush=True)
    return tally


def plan(args):
    """What to run: the suite, what to leave out, a filter or None."""
    every = words()
    if len(every) < 2:
        sys.exit("src/uring/ring.h: the list of features is not where it was")
    unknown = [word for off in args.word or [] for word in off.split(",") if word not in every]
    if unknown:
        sys.exit(f"no such feature: {', '.join(unknown)}; there are: {', '.join(every)}")
    offs = args.word or [*every, *([] if args.quick else PAIRS), ",".join(every)]
    for off in offs:
        for suite in args.suite or SUITES:
            if args.quick and suite == "api" and off != offs[-1]:
                continue
            yield suite, off, f"!({LONG})/*" if args.quick and suite == "contract" else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2, help="for building")
    parser.add_argument("--quick", action="store_true", help="only what takes minutes")
    parser.add_argument("--word", action="append",
                        help="only this, or several with commas (may be given several times)")
    parser.add_argument("--suite", action="append", choices=SUITES)
    args = parser.parse_args()
    driver = load_driver()
    stage = driver.Stage("release", "without features", [f"test_{suite}" for suite in args.suite or SUITES])
    total = driver.Tally()
    lines = []
    runs = list(plan(args))
    if not driver.build(stage, args.jobs):
        total.fail("release: does not build")
        runs = []
    for suite, off, only in runs:
        start = time.monotonic()
        tally = run_suite(driver, ROOT / "build" / stage.preset, suite, off, only)
        name = off if len(off) < 40 else "all"
        lines.append(f"{suite:<9} {name:<33} {tally.passed:>7} {tally.failed:>7} {len(tally.skipped):>8} "
                     f"{time.monotonic() - start:>8.0f}")
        print(lines[-1], flush=True)
        total.add(tally)
    driver.print_names("skipped", total.skipped)
    driver.print_names("failed", total.failures)
    print(f"\n{'suite':<9} {'without':<33} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}")
    print("\n".join(lines))
    print(f"\n{len(total.skipped)} skipped")
    print(f"{total.passed} passed, {total.failed} failed")
    return 1 if total.failed > 0 else 0


if __name__ == "__main__":
    sys.exit(main())
